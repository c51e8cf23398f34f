/** The first screen: the newest traces, what they come to, and a query that narrows them. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { search } from "../api/search";
import type { FoundTrace } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import type { ViewProps } from "../App";
import { clockText, countedText } from "../format";
import { useKeys } from "../keys";
import { Ago } from "../parts/Ago";
import { ErrorBox, Loading, Nothing, PartialNote } from "../parts/States";
import { RangePicker } from "../parts/RangePicker";
import { selecting } from "../query";
import { apiRange, type Range, rangeOf } from "../range";
import { change, rowsOf } from "../router";
import { ColumnPicker } from "./ColumnPicker";
import { Panels } from "./Panels";
import { PickBar, picksOf } from "./Picks";
import { QueryBox } from "./QueryBox";
import { QueryForm } from "./QueryForm";
import { type Sort, SORTS, TraceList } from "./TraceList";

const PAGE = 50;
const REFRESH_MS = 5000;

export function ExplorePage({ params }: ViewProps) {
  const query = params.get("q") ?? "";
  const sort = (params.get("sort") ?? "newest") as Sort;
  const columns = useMemo(() => (params.get("cols") ?? "").split("\t").filter(Boolean), [params]);
  const picks = useMemo(() => picksOf(params), [params]);
  const isForm = params.get("form") === "1";
  const isAuto = params.get("auto") === "1";
  const [turn, setTurn] = useState(0);
  const range = useMemo(() => rangeOf(params), [params.get("since"), params.get("from"), params.get("to"), turn]);
  const about = [query, range];
  const rows = rowsOf(params, PAGE);
  const found = useTraces(query, sort in SORTS ? sort : "newest", columns, range, rows);

  const isWaiting = useRef(false);
  isWaiting.current = found.first.loading;
  useEffect(() => {
    if (!isAuto) return;
    const refresh = () => document.visibilityState === "visible" && !isWaiting.current && setTurn((before) => before + 1);
    const timer = setInterval(refresh, REFRESH_MS);
    return () => clearInterval(timer);
  }, [isAuto]);
  useKeys("Explore", [
    { keys: "/", does: "write a query (↓ suggests, Tab takes, Enter runs it)", run: () => document.getElementById("query")?.focus() },
    { keys: "f", does: "show or hide the form", run: () => change({ form: isForm ? null : "1" }) },
    { keys: "r", does: "ask again", run: () => setTurn((before) => before + 1) },
  ]);

  const askFor = (written: string) => change({ q: written, rows: null });
  const run = (written: string) => {
    if (written === query) setTurn((before) => before + 1);
    else askFor(written);
  };
  const traces = found.traces;
  return (
    <div class="page explore">
      <h1 class="hidden-label">Explore traces</h1>
      <div class="bar">
        <QueryBox query={query} error={found.first.error} range={range} run={run} />
        <div class="bar-end">
          <button type="button" aria-pressed={isForm} onClick={() => change({ form: isForm ? null : "1" })}>
            Form
          </button>
          <RangePicker range={range} />
          <button type="button" aria-pressed={isAuto} title="Ask again every 5 seconds" onClick={() => change({ auto: isAuto ? null : "1" })}>
            Refresh every 5 s
          </button>
        </div>
      </div>
      {isForm && <QueryForm query={query} range={range} write={askFor} />}
      {found.first.error && <ErrorBox error={found.first.error} again={() => setTurn((before) => before + 1)} />}
      {!found.first.error && <Panels query={query} range={range} about={about} />}
      <PartialNote answer={found.first.value} />
      <div class="list-head">
        <Freshness found={found} isOpenEnded={range.since !== ""} isAuto={isAuto} />
        <label class="inline">
          Sort{" "}
          <select value={sort} onChange={(event) => change({ sort: event.currentTarget.value === "newest" ? null : event.currentTarget.value })}>
            {Object.entries(SORTS).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <ColumnPicker range={range} columns={columns} choose={(chosen) => change({ cols: chosen.join("\t") }, true)} />
      </div>
      {found.first.loading && !found.first.value && !found.soFar && <Loading what="Traces are being looked for" />}
      {found.first.value && !traces.length && !found.soFar && !found.isOther && <Nothing what="trace" query={query} />}
      {traces.length > 0 && <TraceList traces={traces} query={query} columns={columns} picks={picks} />}
      {found.hasMore && (
        <p>
          <button type="button" onClick={() => change({ rows: `${rows + PAGE}` }, true)} disabled={found.loadingMore}>
            {found.loadingMore ? "More traces are being looked for…" : "More traces"}
          </button>
        </p>
      )}
      {picks.length > 0 && <PickBar picks={picks} traces={traces} />}
    </div>
  );
}

/** The traces of a search, the first `rows` of them. */
function useTraces(query: string, sort: Sort, columns: readonly string[], range: Range, rows: number) {
  const asked = { q: selecting(query, columns), order: sort, spss: columns.length ? 10 : 1, ...apiRange(range) };
  const key = JSON.stringify(asked);
  const [partly, setPartly] = useState<{ key: string; traces: readonly FoundTrace[] } | null>(null);
  const first = useAnswer(async (signal) => {
    const answer = await search({ ...asked, limit: rows }, signal, (traces) => setPartly({ key, traces }));
    return { ...answer, key, rows };
  }, [key, range, rows]);
  useEffect(() => setPartly(null), [first.value]);
  // What was found so far shows where nothing else does: an answer to the same question stays until the next is whole
  const soFar = first.loading && partly?.key === key && first.value?.key !== key ? partly.traces : null;
  const isOther = first.error !== undefined && first.value?.key !== key; // the answer to another question would pass for one
  const traces = isOther ? [] : (soFar ?? first.value?.traces ?? []);
  const hasMore = !!first.value?.nextCursor && !soFar && !isOther;
  const loadingMore = first.loading && first.value?.key === key && first.value.rows < rows;
  return { first, traces, isOther, soFar: soFar !== null, hasMore, loadingMore };
}

/** How many there are, and how fresh that is: everything acknowledged before the question is in its answer. */
function Freshness(props: { found: ReturnType<typeof useTraces>; isOpenEnded: boolean; isAuto: boolean }) {
  const { traces, soFar, first } = props.found;
  const count = countedText(traces.length, "trace");
  if (soFar) {
    return (
      <p class="dim" role="status">
        <span class="state looking">
          <i />
          {count} so far, looking on…
        </span>
      </p>
    );
  }
  if (!first.atMs || props.found.isOther) return <p class="dim" role="status" />;
  const newestMs = Math.max(...traces.map((trace) => Number(trace.startTimeUnixNano ?? 0) / 1e6 + (trace.durationMs ?? 0)));
  return (
    <p class="dim freshness">
      <span role="status">
        {count}
        {props.found.hasMore && ", and more"}
      </span>
      {props.isOpenEnded && first.value?.complete && (
        <span class="state good" title="Spans are found as soon as they are acknowledged">
          <i />
          all that came until {clockText(first.askedMs)}, <Ago unixMs={first.askedMs} />
        </span>
      )}
      {traces.length > 0 && (
        <span>
          the newest ended <Ago unixMs={newestMs} />
        </span>
      )}
      {first.loading && !props.isAuto && <span>asking again…</span>}
    </p>
  );
}
