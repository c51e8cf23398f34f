import { keyGroups } from "../keys";
import { Dialog } from "./Dialog";

/** The `?` overlay: what each key does now. */
export function KeysDialog(props: { close: () => void }) {
  return (
    <Dialog title="Keyboard" close={props.close}>
      {keyGroups().map((group) => (
        <section key={group.title}>
          <h3>{group.title}</h3>
          <dl class="keys">
            {group.keys.map((key) => (
              <div key={key.keys}>
                <dt>
                  {key.keys.split(" ").map((one) => (
                    <kbd key={one}>{shown(one)}</kbd>
                  ))}
                </dt>
                <dd>{key.does}</dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </Dialog>
  );
}

const NAMES: Record<string, string> = { " ": "Space", ArrowDown: "↓", ArrowUp: "↑", ArrowLeft: "←", ArrowRight: "→" };

function shown(key: string): string {
  return NAMES[key] ?? key.replace("ctrl+", "Ctrl ");
}
