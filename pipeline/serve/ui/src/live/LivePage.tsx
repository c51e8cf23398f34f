/** Spans as they arrive. Scrolling down pauses the list; what comes meanwhile waits. */
import { useEffect, useState } from "preact/hooks";
import type { ViewProps } from "../App";
import { QueryBox } from "../explore/QueryBox";
import { clockText, countedText, countText, durationText, rateText } from "../format";
import { useKeys } from "../keys";
import { Service } from "../parts/Service";
import { Empty, ErrorBox, PartialNote, SendFirstSpan, withCode } from "../parts/States";
import { withCondition } from "../query";
import { rangeOf } from "../range";
import { change, urlOf } from "../router";
import { isFinal, type Tail, type TailSpan, useTail } from "./useTail";

const SCROLLED_PX = 120;
const IDLE_S = 15;
const FILTERS = [
  ["Errors", "status = error"],
  ["Slower than 500 ms", "duration > 500ms"],
] as const;

export function LivePage({ params }: ViewProps) {
  const query = params.get("q") ?? "";
  const held = params.get("paused") === "1";
  const [scrolled, setScrolled] = useState(false);
  const paused = held || scrolled;
  const tail = useTail(query, paused);
  useEffect(() => {
    const moved = () => setScrolled(scrollY > SCROLLED_PX);
    addEventListener("scroll", moved, { passive: true });
    return () => removeEventListener("scroll", moved);
  }, []);
  const resume = () => {
    change({ paused: null }, true);
    scrollTo(0, 0);
  };
  const toggle = () => (paused ? resume() : change({ paused: "1" }, true));
  useKeys("Live", [
    { keys: " ", does: "pause or go on", run: toggle },
    { keys: "/", does: "write a filter", run: () => document.getElementById("query")?.focus() },
  ]);
  return (
    <div class="page live">
      <h1 class="hidden-label">Live spans</h1>
      <div class="bar">
        <QueryBox query={query} error={tail.error} range={rangeOf(params)} placeholder="all spans, or a filter: { status = error }" run={(q) => change({ q })} />
        <div class="bar-end">
          {FILTERS.map(([name, condition]) => (
            <button key={name} type="button" disabled={query.includes(condition)} onClick={() => change({ q: withCondition(query, condition) })}>
              {name}
            </button>
          ))}
        </div>
      </div>
      {tail.error && tail.error.status !== 0 && <ErrorBox error={tail.error} again={() => location.reload()} />}
      <PartialNote answer={tail.partial} />
      <div class="live-head">
        <State tail={tail} paused={paused} />
        <span class="dim">{told(tail)}</span>
        <button type="button" aria-pressed={paused} onClick={toggle}>
          {paused ? `Go on${tail.waiting ? ` (${countText(tail.waiting)} wait)` : ""}` : "Pause"}
        </button>
      </div>
      {tail.state === "lost" && tail.error?.status === 0 && <p>{withCode(tail.error.message)}</p>}
      {tail.spans.length > 0 && <Rows spans={tail.spans} query={query} />}
      {tail.state === "connected" && !tail.spans.length && tail.waiting > 0 && (
        <Empty title={`${countedText(tail.waiting, "span")} came while it is paused`}>
          <p>Go on to see {tail.waiting === 1 ? "it" : "them"}.</p>
        </Empty>
      )}
      {tail.state === "connected" && !tail.spans.length && !tail.waiting && (
        <div class="empty">
          <h2>{query ? "No span that matches has come yet" : "No span has come yet"}</h2>
          <p>{query ? "All that comes is looked at; the list begins with the next span that matches." : "The list begins with the next span."}</p>
          {!query && !tail.arrived && <SendFirstSpan />}
        </div>
      )}
    </div>
  );
}

function State({ tail, paused }: { tail: Tail; paused: boolean }) {
  const lost = isFinal(tail.error) ? "Not connected" : "Not connected: trying again";
  const [name, kind] = tail.state === "connected" ? (paused ? ["Paused", "warn"] : ["Connected", "good"]) : tail.state === "lost" ? [lost, "bad"] : ["Connecting", "warn"];
  return (
    <span class={`state ${kind}`} role="status">
      <i />
      {name}
    </span>
  );
}

function told(tail: Tail): string {
  if (!tail.nowMs) return "";
  const age = tail.newestMs ? (tail.nowMs - tail.newestMs) / 1000 : NaN;
  const parts = [
    `${rateText(tail.perS)} match`,
    `${countText(tail.matched)} since you came`,
    tail.skipped ? `${countText(tail.skipped)} skipped` : "",
    Number.isNaN(age) ? "" : age > IDLE_S ? `the newest ended ${durationText(age * 1e9)} ago` : `the newest is ${Math.max(0, age).toFixed(1)} s old`,
  ];
  return parts.filter(Boolean).join(" · ");
}

function Rows({ spans, query }: { spans: readonly TailSpan[]; query: string }) {
  return (
    <table class="tail">
      <thead>
        <tr>
          <th>Started</th>
          <th>Service</th>
          <th>Span</th>
          <th class="number">Duration</th>
          <th>Status</th>
          <th>Kind</th>
        </tr>
      </thead>
      <tbody>
        {spans.map((span) => {
          const startMs = Number(span.startTimeUnixNano) / 1e6;
          return (
            <tr key={span.traceID + span.spanID + span.kind} class={span.status === "error" ? "failed" : ""}>
              <td class="mono started">
                {clockText(startMs)}.{`${Math.floor(startMs % 1000)}`.padStart(3, "0")}
              </td>
              <td>
                <Service name={span.serviceName.slice(0, 60)} />
              </td>
              <td class="what">
                <a href={urlOf(`/trace/${span.traceID}`, { q: query, span: span.spanID })}>{span.name.slice(0, 120) || "(no name)"}</a>
              </td>
              <td class="number">{durationText(Number(span.durationNanos))}</td>
              <td>{span.status === "error" ? <span class="badge bad">error</span> : <span class="dim">{span.status}</span>}</td>
              <td class="dim">{span.kind}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
