/** The traces that were found, a row each, with columns of one's own choice. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { type FoundTrace, valueText } from "../api/types";
import { agoText, clockText, countText, dayText, durationText, timeText } from "../format";
import { useKeys } from "../keys";
import { Service } from "../parts/Service";
import { go, urlOf } from "../router";
import { togglePick } from "./Picks";

export const SORTS = {
  newest: "newest first",
  oldest: "oldest first",
  longest: "longest first",
  shortest: "shortest first",
  most_spans: "most spans first",
  most_errors: "most errors first",
} as const;
export type Sort = keyof typeof SORTS;

const SERVICES_SHOWN = 4; // those with errors first

interface Counts {
  readonly spans: number;
  readonly errors: number;
}

export function countsOf(trace: FoundTrace): Counts {
  const all = Object.values(trace.serviceStats ?? {});
  return {
    spans: all.reduce((sum, one) => sum + (one.spanCount ?? 0), 0),
    errors: all.reduce((sum, one) => sum + (one.errorCount ?? 0), 0),
  };
}

export function traceUrl(trace: FoundTrace, query: string): string {
  return urlOf(`/trace/${trace.traceID}`, { q: query });
}

interface Props {
  readonly traces: readonly FoundTrace[];
  readonly query: string;
  readonly columns: readonly string[];
  readonly picks: readonly string[];
}

export function TraceList({ traces, query, columns, picks }: Props) {
  const [at, setAt] = useState(-1);
  const body = useRef<HTMLTableSectionElement>(null);
  const longest = Math.max(1, ...traces.map((trace) => trace.durationMs ?? 0));
  const here = () => {
    const row = (document.activeElement as HTMLElement | null)?.closest?.("tr");
    return traces[row && body.current?.contains(row) ? row.sectionRowIndex : at];
  };
  const pick = () => {
    const trace = here();
    if (trace) togglePick(picks, trace.traceID);
  };
  const move = (step: number) => setAt((before) => Math.min(traces.length - 1, Math.max(0, before + step)));
  // Before the next key comes: it is about the row that has the focus
  useLayoutEffect(() => {
    if (at >= 0) body.current?.rows[at]?.querySelector("a")?.focus();
  }, [at]);
  useKeys("The list", [
    { keys: "j", does: "next trace", run: () => move(1) },
    { keys: "k", does: "trace before", run: () => move(-1) },
    {
      keys: "Enter",
      does: "open the trace",
      run: () => {
        const trace = here();
        if (trace) go(traceUrl(trace, query));
      },
    },
    { keys: "x", does: "pick the trace, to compare it with a second one", run: pick },
  ]);
  return (
    <table class="traces">
      <thead>
        <tr>
          <th>
            <span class="hidden-label">Picked</span>
          </th>
          <th>Started</th>
          <th>Trace</th>
          {columns.map((column) => (
            <th key={column}>{column.replace(/^(span|resource)\./, "")}</th>
          ))}
          <th>Duration</th>
          <th class="number">Spans</th>
          <th class="number">Errors</th>
          <th>Services</th>
        </tr>
      </thead>
      <tbody ref={body}>
        {traces.map((trace) => (
          <Row
            key={trace.traceID}
            trace={trace}
            query={query}
            columns={columns}
            longest={longest}
            picked={picks.includes(trace.traceID)}
            pick={() => togglePick(picks, trace.traceID)}
          />
        ))}
      </tbody>
    </table>
  );
}

interface RowProps {
  readonly trace: FoundTrace;
  readonly query: string;
  readonly columns: readonly string[];
  readonly longest: number;
  readonly picked: boolean;
  readonly pick: () => void;
}

function Row({ trace, query, columns, longest, picked, pick }: RowProps) {
  const { spans, errors } = countsOf(trace);
  const startMs = Number(trace.startTimeUnixNano ?? 0) / 1e6;
  const hasRoot = trace.rootServiceName !== "<root span not yet received>";
  const services = Object.entries(trace.serviceStats ?? {}).sort(
    ([, a], [, b]) => (b.errorCount ?? 0) - (a.errorCount ?? 0) || (b.spanCount ?? 0) - (a.spanCount ?? 0),
  );
  return (
    <tr class={picked ? "picked" : ""}>
      <td class="pick">
        <input
          type="checkbox"
          checked={picked}
          aria-label={`Pick ${cut(trace.rootTraceName ?? "") || trace.traceID.slice(0, 16)}, ${clockText(startMs)}`}
          title="Pick two traces to compare them (x)"
          onChange={pick}
        />
      </td>
      <td class="started" title={timeText(startMs)}>
        <span class="mono">{clockText(startMs)}</span> <span class="dim">{startDay(startMs)}</span>
      </td>
      <td class="what">
        <a href={traceUrl(trace, query)}>
          {hasRoot ? <Service name={cut(trace.rootServiceName ?? "")} /> : <span class="badge warn">no root yet</span>}{" "}
          <span class="root-name">{cut(trace.rootTraceName ?? "") || (hasRoot ? "(no name)" : trace.traceID.slice(0, 16))}</span>
        </a>
      </td>
      {columns.map((column) => (
        <td key={column} class="attribute">
          {cut(attributeOf(trace, column))}
        </td>
      ))}
      <td class="took">
        <i class="took-bar" style={{ width: `${Math.max(1, ((trace.durationMs ?? 0) / longest) * 100)}%` }} />
        <span>{trace.durationMs ? durationText(trace.durationMs * 1e6) : "< 1 ms"}</span>
      </td>
      <td class="number count" data-name={spans === 1 ? "span" : "spans"}>
        {countText(spans)}
      </td>
      <td class={errors ? "number count bad-text" : "number count dim"} data-name={errors === 1 ? "error" : "errors"}>
        {countText(errors)}
      </td>
      <td class="services">
        {services.slice(0, SERVICES_SHOWN).map(([service, stats]) => (
          <Service key={service} name={cut(service, 40)} errors={stats.errorCount ?? 0} />
        ))}
        {services.length > SERVICES_SHOWN && <span class="dim more">+ {services.length - SERVICES_SHOWN}</span>}
      </td>
    </tr>
  );
}

function startDay(unixMs: number): string {
  return Date.now() - unixMs < 12 * 3600e3 ? agoText(unixMs) : dayText(unixMs);
}

function cut(text: string, most = 100): string {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** The values that the matched spans have of an attribute. The API names it without its scope. */
function attributeOf(trace: FoundTrace, column: string): string {
  const key = column.replace(/^(span|resource|event|link|instrumentation)?\./, "").replace(/^"(.*)"$/, "$1");
  const values = new Set<string>();
  for (const set of trace.spanSets ?? []) {
    for (const span of set.spans) {
      if (key === "name" && span.name) values.add(span.name);
      for (const pair of span.attributes ?? []) if (pair.key === key) values.add(valueText(pair.value));
    }
  }
  return [...values].join(", ");
}
