/** One span in full: attributes, resource, events, links, and what it is as JSON. */
import type { ComponentChildren } from "preact";
import { ask } from "../api/client";
import { type KeyValue, type OtlpSpan, type TraceAnswer, valueText } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { countText, durationText, percentText, timeText } from "../format";
import { CopyButton } from "../parts/CopyButton";
import { Service } from "../parts/Service";
import { ErrorBox, Loading } from "../parts/States";
import { attributeName, quoted, withCondition } from "../query";
import { rangeParams } from "../range";
import { change, urlOf } from "../router";
import { KINDS, STATUS_ERROR, type Tree } from "./model";

const NEW_MS = 50 * 60e3;
const AROUND_S = 1800;
const STAYS_MS = 80; // a span that a held key passes by is not asked for
const LINKS_MAX = 200;
const SHOWN_MAX = 2000; // characters of a value; the copy has all
const NAME_SHOWN_MAX = 200;
const TRACE_SHOWN_MAX = 20_000; // of a stack trace, whose end says as much as its beginning

export function SpanPanel(props: { tree: Tree; row: number; query: string; params: URLSearchParams; copied: () => Promise<string>; close: () => void }) {
  const { tree, row } = props;
  const { columns } = tree;
  const id = columns.spanId[row]!;
  const kind = columns.kind[row]!;
  const path = `/api/trace-view/${columns.traceId}/spans/${id}`;
  const found = useAnswer(async (signal) => {
    await new Promise((done) => setTimeout(done, STAYS_MS));
    signal.throwIfAborted();
    return ask<TraceAnswer>(path, { kind }, signal);
  }, [path, kind]);
  const batch = found.value?.trace.resourceSpans?.[0];
  const scope = batch?.scopeSpans?.[0];
  const span = scope?.spans?.[0];
  const startMs = Number(BigInt(columns.startUnixNano) / 1000n) / 1000 + columns.start[row]! / 1e6;
  // Beside what was searched for, and around the trace where the newest hour does not have it
  const times = Date.now() - startMs < NEW_MS ? {} : rangeParams({ fromS: startMs / 1000 - AROUND_S, toS: startMs / 1000 + AROUND_S });
  const explore = (condition: string) => urlOf("/", { q: withCondition(props.query, condition), ...times });
  const failed = columns.code[row] === STATUS_ERROR;
  const turned = new Set((props.params.get("parts") ?? "").split(".").filter(Boolean));
  return (
    <aside class="span-panel" aria-label="Span">
      <div class="dialog-head">
        <h2>
          <Value text={columns.names[columns.name[row]!] || "(no name)"} most={NAME_SHOWN_MAX} />
        </h2>
        <button type="button" class="quiet" aria-label="Close the span" onClick={props.close}>
          ×
        </button>
      </div>
      <p>
        <Service name={columns.services[columns.service[row]!]!.slice(0, NAME_SHOWN_MAX)} /> <span class="badge">{KINDS[kind] ?? kind}</span>{" "}
        {failed && <span class="badge bad">error</span>}
      </p>
      <dl class="facts">
        <Fact name="Duration" value={`${durationText(columns.duration[row]!)}, ${percentText(Math.max(0, columns.duration[row]!) / tree.totalNs)} of the trace`} />
        <Fact name="Self" value={durationText(tree.selfNs[row]!)} />
        <Fact name="Start" value={`+${durationText(columns.start[row]!)}, ${timeText(startMs)}`} />
        {span?.status?.message && <Fact name="Status" value={span.status.message} />}
        <Fact name="Span" value={id} />
      </dl>
      <CopyButton text={id} what="Copy span ID" />
      <CopyButton text={props.copied} what={tree.size[row]! > 1 ? "Copy with all below" : "Copy as text"} />
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      {found.loading && !span && <Loading what="The span is being read" />}
      {span && (
        <>
          <Pairs title="Attributes" scope="span" pairs={span.attributes} found={explore} turned={turned} />
          <Events span={span} startNs={BigInt(columns.startUnixNano)} turned={turned} />
          {(span.links ?? []).length > 0 && (
            <Part name="links" title={`Links (${span.links!.length})`} turned={turned}>
              <ul>
                {span.links!.slice(0, LINKS_MAX).map((link, at) => (
                  <Link key={at} link={link} />
                ))}
              </ul>
            </Part>
          )}
          <Pairs title="Resource" scope="resource" pairs={batch?.resource?.attributes} found={explore} turned={turned} />
          {scope?.scope?.name && (
            <p class="dim">
              Scope {scope.scope.name} {scope.scope.version ?? ""}
            </p>
          )}
          <Part name="json" title="JSON" turned={turned} isClosed>
            <CopyButton text={JSON.stringify(batch, null, 2)} what="Copy" />
            <pre tabIndex={0}>{JSON.stringify(batch, null, 2).slice(0, 100_000)}</pre>
          </Part>
        </>
      )}
    </aside>
  );
}

/** A part that opens and closes. turned: the names of those that stand otherwise than at first, as the URL tells them. */
function Part(props: { name: string; title: string; turned: ReadonlySet<string>; isClosed?: boolean; children: ComponentChildren }) {
  const { name, turned } = props;
  const isOpen = turned.has(name) === (props.isClosed ?? false);
  const toggled = (details: HTMLDetailsElement) => {
    if (details.open === isOpen) return;
    const others = [...turned].filter((one) => one !== name);
    change({ parts: (turned.has(name) ? others : [...others, name]).join(".") }, true);
  };
  return (
    <details open={isOpen} onToggle={(event) => toggled(event.currentTarget)}>
      <summary>{props.title}</summary>
      {props.children}
    </details>
  );
}

/** Cut where it is long, which is told. */
function Value({ text, most = SHOWN_MAX }: { text: string; most?: number }) {
  return (
    <>
      {text.slice(0, most)}
      {text.length > most && <span class="dim"> … {countText(text.length)} characters</span>}
    </>
  );
}

/** A key; its line breaks come behind dots. */
function Key({ text }: { text: string }) {
  return <th scope="row">{text.split(/(?<=[._/-])/).map((part, at) => [at > 0 && <wbr key={at} />, part])}</th>;
}

function Fact(props: { name: string; value: string }) {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.value}</dd>
    </div>
  );
}

/** found: the URL of Explore with a condition. */
function Pairs(props: {
  title: string;
  scope: string;
  pairs: KeyValue[] | undefined;
  found: (condition: string) => string;
  turned: ReadonlySet<string>;
}) {
  const pairs = props.pairs ?? [];
  if (!pairs.length) return null;
  return (
    <Part name={props.title.toLowerCase()} title={`${props.title} (${pairs.length})`} turned={props.turned}>
      <table class="pairs">
        <tbody>
          {pairs.map((pair, at) => {
            const text = valueText(pair.value);
            const condition = conditionOf(props.scope, pair);
            return (
              <tr key={at}>
                <Key text={pair.key} />
                <td>
                  <Value text={text} />
                </td>
                <td class="pair-do">
                  {condition && (
                    <>
                      <a href={props.found(condition("="))} aria-label={`Find spans with this ${pair.key}`} title="Find spans with it">
                        =
                      </a>
                      <a href={props.found(condition("!="))} aria-label={`Find spans with another ${pair.key}`} title="Find spans with another">
                        ≠
                      </a>
                    </>
                  )}
                  <CopyButton text={text} what="copy" />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Part>
  );
}

/** A condition on a plain value; null for arrays, maps and bytes. */
function conditionOf(scope: string, pair: KeyValue): ((op: string) => string) | null {
  const { stringValue, intValue, doubleValue, boolValue } = pair.value;
  const literal = stringValue !== undefined ? quoted(stringValue) : (intValue ?? doubleValue ?? boolValue);
  return literal === undefined ? null : (op) => `${attributeName(scope, pair.key)} ${op} ${literal}`;
}

function Events(props: { span: OtlpSpan; startNs: bigint; turned: ReadonlySet<string> }) {
  const events = props.span.events ?? [];
  if (!events.length) return null;
  return (
    <Part name="events" title={`Events (${events.length})`} turned={props.turned}>
      {events.slice(0, 200).map((event, at) => (
        <div key={at} class="event">
          <p>
            <b>{event.name || "(no name)"}</b> <span class="dim">+{durationText(Number(BigInt(event.timeUnixNano ?? "0") - props.startNs))}</span>
          </p>
          <table class="pairs">
            <tbody>
              {(event.attributes ?? []).map((pair, index) => (
                <tr key={index}>
                  <Key text={pair.key} />
                  <td>
                    {pair.key === "exception.stacktrace" ? (
                      <div class="stack-trace" tabIndex={0}>
                        <Value text={valueText(pair.value)} most={TRACE_SHOWN_MAX} />
                      </div>
                    ) : (
                      <Value text={valueText(pair.value)} />
                    )}
                  </td>
                  <td class="pair-do">
                    <CopyButton text={valueText(pair.value)} what="copy" />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ))}
    </Part>
  );
}

/** Leads to the span that is meant, in its own trace. */
function Link({ link }: { link: NonNullable<OtlpSpan["links"]>[number] }) {
  const [trace, span] = [hexOf(link.traceId), hexOf(link.spanId)];
  return (
    <li>
      <a class="mono" href={urlOf(`/trace/${trace}`, { span })}>
        {trace}, span {span}
      </a>
      {(link.attributes ?? []).map((pair, at) => (
        <div key={at} class="dim">
          {pair.key}: {valueText(pair.value).slice(0, SHOWN_MAX)}
        </div>
      ))}
    </li>
  );
}

/** IDs come in base64 in OTLP's JSON as Tempo writes it. */
function hexOf(base64: string): string {
  return [...atob(base64)].map((character) => character.charCodeAt(0).toString(16).padStart(2, "0")).join("");
}
