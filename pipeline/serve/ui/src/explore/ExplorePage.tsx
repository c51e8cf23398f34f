/** The first screen: the newest traces, what they come to, and a query that narrows them. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ask } from "../api/client";
import { search } from "../api/search";
import type { FoundTrace, SearchAnswer } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import type { ViewProps } from "../App";
import { clockText, countedText } from "../format";
import { useKeys } from "../keys";
import { Ago } from "../parts/Ago";
import { Empty, ErrorBox, Loading, PartialNote, SendFirstSpan } from "../parts/States";
import { RangePicker } from "../parts/RangePicker";
import { selecting } from "../query";
import { apiRange, type Range, rangeOf } from "../range";
import { change } from "../router";
import { ColumnPicker } from "./ColumnPicker";
import { Panels } from "./Panels";
import { PickBar, picksOf } from "./Picks";
import { QueryBox } from "./QueryBox";
import { QueryForm } from "./QueryForm";
import { type Sort, SORTS, TraceList } from "./TraceList";

const FIRST = 50;
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
  const found = useTraces(query, sort in SORTS ? sort : "newest", columns, range);

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

  const run = (written: string) => {
    if (written === query) setTurn((before) => before + 1);
    else change({ q: written });
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
      {isForm && <QueryForm query={query} range={range} write={(written) => change({ q: written })} />}
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
      {found.first.value && !traces.length && !found.soFar && !found.isOther && <Nothing query={query} />}
      {traces.length > 0 && <TraceList traces={traces} query={query} columns={columns} picks={picks} />}
      {found.more && (
        <p>
          <button type="button" onClick={found.more} disabled={found.loadingMore}>
            {found.loadingMore ? "More traces are being looked for…" : "More traces"}
          </button>
        </p>
      )}
      {picks.length > 0 && <PickBar picks={picks} traces={traces} />}
    </div>
  );
}

/** The traces of a search, page by page. */
function useTraces(query: string, sort: Sort, columns: readonly string[], range: Range) {
  const [later, setLater] = useState<{ traces: readonly FoundTrace[]; cursor: string | undefined } | null>(null);
  const [loadingMore, setLoadingMore] = useState(false);
  const asked = {
    q: selecting(query, columns),
    order: sort,
    limit: FIRST,
    spss: columns.length ? 10 : 1,
    ...apiRange(range),
  };
  const key = JSON.stringify(asked);
  const [partly, setPartly] = useState<{ key: string; traces: readonly FoundTrace[] } | null>(null);
  const first = useAnswer(async (signal) => {
    const answer = await search(asked, signal, (traces) => setPartly({ key, traces }));
    return { ...answer, key };
  }, [key, range]);
  useEffect(() => {
    setLater(null);
    setPartly(null);
  }, [first.value]);
  const cursor = later ? later.cursor : first.value?.nextCursor;
  const more = async () => {
    setLoadingMore(true);
    try {
      const next = await ask<SearchAnswer>("/api/search", { ...asked, cursor });
      setLater((before) => ({ traces: [...(before?.traces ?? []), ...next.traces], cursor: next.nextCursor }));
    } catch {
      first.again();
    } finally {
      setLoadingMore(false);
    }
  };
  // What was found so far shows where nothing else does: an answer to the same question stays until the next is whole
  const soFar = first.loading && partly?.key === key && first.value?.key !== key ? partly.traces : null;
  const isOther = first.error !== undefined && first.value?.key !== key; // the answer to another question would pass for one
  const traces = useMemo(
    () => (isOther ? [] : (soFar ?? [...(first.value?.traces ?? []), ...(later?.traces ?? [])])),
    [first.value, later, soFar, isOther],
  );
  return { first, traces, isOther, soFar: soFar !== null, more: cursor && !soFar && !isOther ? more : null, loadingMore };
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
        {props.found.more && ", and more"}
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

function Nothing({ query }: { query: string }) {
  if (!query) {
    return (
      <Empty title="No trace in this time">
        <SendFirstSpan />
      </Empty>
    );
  }
  return (
    <Empty title="No trace matches">
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
