/** What stands where an answer is missing, wrong, empty or not complete. */
import type { ComponentChildren } from "preact";
import type { ApiError } from "../api/client";
import type { Partial } from "../api/types";
import { CopyButton } from "./CopyButton";

/** An error as a sentence, with a way out. */
export function ErrorBox(props: { error: ApiError; again: () => void }) {
  return (
    <div class="notice bad" role="alert">
      <p>{props.error.message}</p>
      <button type="button" onClick={props.again}>
        Try again
      </button>
    </div>
  );
}

/** Says that an answer is not complete, and why. */
export function PartialNote(props: { answer: Partial | undefined }) {
  if (props.answer?.status !== "PARTIAL") return null;
  return (
    <div class="notice warn" role="status">
      <p>
        <strong>Not complete:</strong> {props.answer.message ?? "the querier gave no reason."}
      </p>
    </div>
  );
}

export function Loading(props: { what: string }) {
  return (
    <p class="loading" role="status">
      {props.what}
    </p>
  );
}

export function Empty(props: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{props.title}</h2>
      {props.children}
    </div>
  );
}

/** How the first span comes here. */
export function SendFirstSpan() {
  const host = location.hostname || "127.0.0.1";
  const variables = `export OTEL_EXPORTER_OTLP_ENDPOINT=http://${host}:4318\nexport OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`;
  return (
    <>
      <p>Start a program with an OpenTelemetry SDK like this, and its spans are here within a second:</p>
      <div class="code">
        <pre tabIndex={0}>{variables}</pre>
        <CopyButton text={variables} what="Copy" />
      </div>
      <p>
        Or let spanstream send some: <code>spanstream load --spans 10000</code>. With a receiver elsewhere, put its host and
        port there. Whether every part is reached is told by <code>spanstream doctor</code> and by{" "}
        <a href="/system">System</a>.
      </p>
    </>
  );
}
