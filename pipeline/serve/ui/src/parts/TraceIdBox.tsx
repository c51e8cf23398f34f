import { useState } from "preact/hooks";
import { go } from "../router";
import { NO_TRACE_ID, writtenTraceId } from "../traceId";

/** Opens a trace by its ID. */
export function TraceIdBox() {
  const [wrong, setWrong] = useState(false);
  const open = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const id = writtenTraceId(form, "id");
    setWrong(!id);
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
        aria-invalid={wrong}
        title={wrong ? NO_TRACE_ID : "Open a trace by its ID"}
        onInput={() => setWrong(false)}
      />
    </form>
  );
}
