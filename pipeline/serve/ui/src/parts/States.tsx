/** What stands where an answer is missing, wrong, empty or not complete. */
import type { ComponentChildren } from "preact";
import { type ApiError, ask } from "../api/client";
import type { Partial } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { change } from "../router";
import type { Source } from "../system/state";
import { CopyButton } from "./CopyButton";

/** An error as a sentence, with a way out; that of a wrong question is to write it otherwise. */
export function ErrorBox(props: { error: ApiError; again: () => void }) {
  return (
    <div class="notice bad" role="alert">
      <p>{withCode(props.error.message)}</p>
      {props.error.status !== 400 && (
        <button type="button" onClick={props.again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Commands of a sentence stand between backticks; where these are no pairs, it is as it came. */
export function withCode(text: string) {
  const parts = text.split("`");
  return parts.length % 2 ? parts.map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part)) : text;
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

/** Nothing was found: a way to more, and where nothing was looked for, how the first span comes here. what: one of those looked for. */
export function Nothing({ what, query }: { what: string; query: string }) {
  if (!query) {
    return (
      <Empty title={`No ${what} in this time`}>
        <SendFirstSpan />
      </Empty>
    );
  }
  return (
    <Empty title={`No ${what} matches`}>
      <p>
        Look over a <button type="button" onClick={() => change({ since: "7d", from: null, to: null })}>longer time</button> or{" "}
        <button type="button" onClick={() => change({ q: null })}>
          drop the query
        </button>
        .
      </p>
    </Empty>
  );
}

/** How the first span comes here. */
export function SendFirstSpan() {
  const receivers = useAnswer((signal) => ask<{ sources: readonly Source[] }>("/api/status/drops", {}, signal), []);
  const receiver = receivers.value?.sources?.find((one) => one.kind === "receiver");
  const variables = `export OTEL_EXPORTER_OTLP_ENDPOINT=${receiverUrl(receiver?.url)}\nexport OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`;
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

/** The receiver as this browser reaches it: what the querier calls 127.0.0.1 is the querier's own machine. */
function receiverUrl(known = "http://127.0.0.1:4318"): string {
  const url = new URL(known);
  if (/^(127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0)$/.test(url.hostname)) url.hostname = location.hostname || "127.0.0.1";
  return url.origin;
}
