import { go } from "../router";
import { writtenTraceId } from "../traceId";

/** Opens a trace by its ID. */
export function TraceIdBox() {
  const open = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const id = writtenTraceId(form, "id");
    if (id) {
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
        title="Open a trace by its ID"
        onInput={(event) => event.currentTarget.setCustomValidity("")}
      />
    </form>
  );
}
