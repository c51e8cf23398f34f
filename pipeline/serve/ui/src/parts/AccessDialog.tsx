import { access, setAccess } from "../api/client";
import { Dialog } from "./Dialog";

/** Who asks: the tenant, and a token where the querier wants one. */
export function AccessDialog(props: { close: () => void }) {
  const { tenant, token } = access();
  const save = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.target as HTMLFormElement);
    setAccess({ tenant: `${given.get("tenant") ?? ""}`, token: `${given.get("token") ?? ""}` });
    location.reload();
  };
  return (
    <Dialog title="Access" close={props.close}>
      <form class="stack" onSubmit={save}>
        <p class="dim">
          Needed only where the querier separates tenants or asks for a token. Both stay in this browser.
        </p>
        <label>
          Tenant (X-Scope-OrgID)
          <input name="tenant" defaultValue={tenant} autocomplete="off" placeholder="team-a, or team-a|team-b" />
        </label>
        <label>
          Token
          <input name="token" type="password" defaultValue={token} autocomplete="off" />
        </label>
        <button type="submit" class="primary">
          Use these
        </button>
      </form>
    </Dialog>
  );
}
