import { useState } from "preact/hooks";
import { go } from "../router";

/** Opens a trace by its ID. */
export function TraceIdBox() {
  const [wrong, setWrong] = useState(false);
  const open = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const id = `${new FormData(form).get("id") ?? ""}`.trim().toLowerCase();
    const valid = /^[0-9a-f]{1,32}$/.test(id);
    setWrong(!valid);
    if (valid) {
      form.reset();
      go(`/trace/${id}`);
    }
  };
  return (
    <form class="trace-id" onSubmit={open} role="search" aria-label="Open a trace">
      <input
        name="id"
        aria-label="Trace ID"
        placeholder="Trace ID"
        autocomplete="off"
        spellcheck={false}
        aria-invalid={wrong}
        title={wrong ? "A trace ID has 1 to 32 hex digits" : "Open a trace by its ID"}
        onInput={() => setWrong(false)}
      />
    </form>
  );
}
