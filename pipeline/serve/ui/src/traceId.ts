/** Trace IDs as people write them. */
const NO_TRACE_ID = "A trace ID has 1 to 32 hex digits";

/** The ID of a text, in lower case; null where it is none. */
export function traceIdOf(text: string): string | null {
  const id = text.trim().toLowerCase();
  return /^[0-9a-f]{1,32}$/.test(id) ? id : null;
}

/** The ID in a field of a form that was sent; where it is none, that is told at the field. */
export function writtenTraceId(form: HTMLFormElement, field: string): string | null {
  const input = form.elements.namedItem(field) as HTMLInputElement;
  const id = traceIdOf(input.value);
  if (!id) {
    input.setCustomValidity(NO_TRACE_ID);
    input.reportValidity();
  }
  return id;
}
