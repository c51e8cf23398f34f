/** One trace: waterfall, flame graph, table of operations, events in order, one span in full, and filters inside. */
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { ask, ApiError, fetchApi } from "../api/client";
import type { Partial } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { countedText, countText, durationText, timeText } from "../format";
import { useKeys } from "../keys";
import { CopyButton } from "../parts/CopyButton";
import { Service } from "../parts/Service";
import { Empty, ErrorBox, Loading, PartialNote } from "../parts/States";
import { QueryBox } from "../explore/QueryBox";
import type { Range } from "../range";
import { change } from "../router";
import { AgainstBox } from "./AgainstBox";
import { type EventColumns, EventList } from "./EventList";
import { FlameGraph } from "./FlameGraph";
import { Minimap } from "./Minimap";
import { OperationTable } from "./OperationTable";
import { SpanPanel } from "./SpanPanel";
import { asText } from "./asText";
import { Waterfall } from "./Waterfall";
import { type Closed, closedRows, foldText, isBelow, opened, turned } from "./fold";
import { type Span, type TraceColumns, type Tree, nameOf, rootOf, rowOf, rowsWith, treeOf, visibleRows, withAncestors } from "./model";

const VIEWS = ["waterfall", "flame", "operations", "events"] as const;

/** The answer of /api/trace-view/{id}/matches. */
interface Matched extends Partial {
  readonly version: string;
  readonly rows: readonly number[];
}

export function TracePage(props: { traceId: string; params: URLSearchParams }) {
  const path = `/api/trace-view/${encodeURIComponent(props.traceId)}`;
  const found = useAnswer((signal) => ask<TraceColumns>(path, {}, signal), [path]);
  const columns = found.value;
  const tree = useMemo(() => (columns?.spanId.length ? treeOf(columns) : undefined), [columns]);
  return (
    <div class="page trace-page">
      {!tree && (
        <h1>
          Trace <code>{props.traceId}</code>
        </h1>
      )}
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      <PartialNote answer={columns} />
      {found.loading && !found.value && <Loading what="The trace is being looked for" />}
      {columns && !tree && (
        <Empty title="No span of this trace is known">
          <p>
            It may be older than what is kept, of another tenant, or not yet sent. <code>spanstream where {props.traceId.slice(0, 40)}</code> looks
            at every place.
          </p>
          <button type="button" onClick={found.again}>
            Look again
          </button>
        </Empty>
      )}
      {tree && <Trace key={props.traceId} tree={tree} params={props.params} again={found.again} />}
    </div>
  );
}

/** The rows that a condition holds of. A trace that has more spans by now is asked for again. */
function useMatched(tree: Tree, query: string, again: () => void) {
  const { columns } = tree;
  const question = async (signal: AbortSignal) => {
    const matched = await ask<Matched>(`/api/trace-view/${columns.traceId}/matches`, { q: query }, signal);
    if (matched.version !== columns.version) again();
    return { query, ...matched };
  };
  const found = useAnswer(query ? question : null, [columns, query]);
  const { value, error, loading } = found;
  const isOfNow = query !== "" && !error && value?.query === query && value.version === columns.version;
  return { rows: isOfNow ? value.rows : null, error: query && !loading ? error : undefined };
}

function Trace(props: { tree: Tree; params: URLSearchParams; again: () => void }) {
  const { tree, params } = props;
  const query = params.get("q") ?? "";
  const isConditionOpen = params.has("box") ? params.get("box") === "1" : query !== "";
  const setConditionOpen = (open: boolean) => change({ box: open === (query !== "") ? null : open ? "1" : "0" }, true);
  const { rows: queried, error: unfit } = useMatched(tree, query, props.again);
  const text = params.get("find") ?? "";
  const only = params.get("only") === "1";
  const view = VIEWS.find((one) => one === params.get("view")) ?? "waterfall";
  const critical = params.get("critical") !== "0";
  const zoom = zoomOf(params, tree);
  const matches = useMemo(() => {
    const worded = rowsWith(tree, text);
    if (worded && queried) return new Set(queried.filter((row) => worded.has(row)));
    return worded ?? (queried ? new Set(queried) : null);
  }, [tree, text, queried]);
  const wanted = params.get("span") ?? "";
  const selected = useMemo(() => (wanted ? rowOf(tree.columns, wanted) : -1), [tree, wanted]);
  const fold = params.get("fold") ?? "";
  const asked = useMemo(() => closedRows(tree, fold), [tree, fold]);
  const collapsed = useMemo(() => opened(asked, tree, selected), [asked, tree, selected]);
  const kept = useMemo(() => (only && matches ? withAncestors(tree, matches) : null), [tree, matches, only]);
  const shown = useMemo(() => visibleRows(tree, kept ? new Set() : collapsed, kept), [tree, collapsed, kept]);
  const search = useRef<HTMLInputElement>(null);
  /** Rows as they are to stand, with the selected one among those that show. */
  const stand = (closed: Closed, row: number, word = fold) =>
    change({ fold: foldText(tree, word, closed), span: row < 0 ? null : nameOf(tree.columns, row) }, true);
  const select = (row: number) => row >= 0 && stand(opened(collapsed, tree, row), row);
  const toggle = (row: number) => stand(turned(collapsed, row), !collapsed.has(row) && isBelow(tree, selected, row) ? row : selected);
  const closeAll = () => stand(closedRows(tree, "closed"), selected < 0 ? -1 : topOf(tree, selected), "closed");
  const ordered = useMemo(() => (matches ? [...matches].sort((a, b) => tree.place[a]! - tree.place[b]!) : []), [matches]);
  const jump = (by: number) => {
    if (!ordered.length) return;
    const at = ordered.indexOf(selected);
    select(ordered[at < 0 ? (by > 0 ? 0 : ordered.length - 1) : (at + by + ordered.length) % ordered.length]!);
  };
  const step = (by: number) => select(shown[Math.max(0, Math.min(shown.length - 1, (selected < 0 ? -1 : shown.indexOf(selected)) + by))] ?? -1);
  const inward = () => selected >= 0 && (collapsed.has(selected) ? toggle(selected) : tree.size[selected]! > 1 && step(1));
  const outward = () => {
    if (selected < 0) return;
    if (tree.size[selected]! > 1 && !collapsed.has(selected)) toggle(selected);
    else select(tree.columns.parent[selected]!);
  };
  const isToWrite = useRef(false); // before the next key comes
  const openCondition = () => {
    setConditionOpen(true);
    if (isConditionOpen) document.getElementById("query")?.focus();
    else isToWrite.current = true;
  };
  useLayoutEffect(() => {
    if (isToWrite.current) document.getElementById("query")?.focus();
    isToWrite.current = false;
  }, [isConditionOpen]);
  useKeys("Trace", [
    { keys: "j", does: "next span", run: () => step(1) },
    { keys: "ArrowDown", does: "next span", run: () => step(1) },
    { keys: "k", does: "span before", run: () => step(-1) },
    { keys: "ArrowUp", does: "span before", run: () => step(-1) },
    { keys: "ArrowRight", does: "open, or to the first child", run: inward },
    { keys: "ArrowLeft", does: "close, or to the parent", run: outward },
    { keys: "]", does: "open all", run: () => stand(new Set(), selected, "open") },
    { keys: "[", does: "close all", run: closeAll },
    { keys: "n", does: "next match", run: () => jump(1) },
    { keys: "N", does: "match before", run: () => jump(-1) },
    { keys: "f", does: "find in this trace", run: () => search.current?.focus() },
    { keys: "/", does: "write a condition in TraceQL (Enter marks what it holds of)", run: openCondition },
    { keys: "v", does: "the next way to show it", run: () => show(VIEWS[(VIEWS.indexOf(view) + 1) % VIEWS.length]!) },
    { keys: "x", does: "only matches, or all", run: () => change({ only: only ? null : "1" }, true) },
    { keys: "p", does: "critical path on or off", run: () => change({ critical: critical ? "0" : null }, true) },
    { keys: "z", does: "the whole time", run: () => change({ zoom: null }, true) },
    ...(selected < 0 ? [] : [{ keys: "Escape", does: "close the span", run: () => change({ span: null }, true) }]),
  ]);
  const show = (next: (typeof VIEWS)[number]) => change({ view: next === "waterfall" ? null : next }, true);
  const setZoom = (next: Span | null) => change({ zoom: next && `${Math.round(next[0])}-${Math.round(next[1])}` }, true);
  return (
    <>
      <Head tree={tree} />
      {tree.columns.copies > 0 && <p class="dim">{tree.columns.copies} late copies of its spans are stored too, and left out.</p>}
      <Minimap tree={tree} zoom={zoom} setZoom={setZoom} />
      <div class="bar trace-bar">
        <span class="group" role="group" aria-label="Shown as">
          {VIEWS.map((one) => (
            <button key={one} type="button" aria-pressed={one === view} onClick={() => show(one)}>
              {one[0]!.toUpperCase() + one.slice(1)}
            </button>
          ))}
        </span>
        <input
          ref={search}
          type="search"
          aria-label="Find in this trace"
          placeholder="name, service, error, >10ms, >2.5%"
          value={text}
          onInput={(event) => change({ find: event.currentTarget.value }, true)}
          onKeyDown={(event) => event.key === "Enter" && jump(event.shiftKey ? -1 : 1)}
        />
        <button type="button" aria-expanded={isConditionOpen} onClick={() => (isConditionOpen ? setConditionOpen(false) : openCondition())}>
          TraceQL
        </button>
        {matches && (
          <span class="group">
            <span class="matches" role="status">
              {selected >= 0 && matches.has(selected) ? `${ordered.indexOf(selected) + 1} of ` : ""}
              {countText(matches.size)} matched
            </span>
            <button type="button" disabled={!matches.size} aria-label="Match before" onClick={() => jump(-1)}>
              ↑
            </button>
            <button type="button" disabled={!matches.size} aria-label="Next match" onClick={() => jump(1)}>
              ↓
            </button>
            <button type="button" aria-pressed={only} onClick={() => change({ only: only ? null : "1" }, true)}>
              Only matches
            </button>
          </span>
        )}
        {view === "waterfall" && (
          <button type="button" aria-pressed={critical} onClick={() => change({ critical: critical ? "0" : null }, true)}>
            Critical path
          </button>
        )}
      </div>
      {isConditionOpen && (
        <div class="bar">
          <QueryBox
            query={query}
            error={unfit}
            range={rangeAround(tree)}
            placeholder="{ duration > 10ms && span.db.system.name != nil }   marks the spans that it holds of"
            action="Mark"
            run={(written) => change({ q: written, box: written ? null : "1" }, true)}
          />
        </div>
      )}
      {unfit && (
        <p class="bad-text" role="status">
          This marks no spans here: {unfit.message}
        </p>
      )}
      <div class={selected >= 0 ? "trace-body with-panel" : "trace-body"}>
        {view === "waterfall" && (
          <Waterfall
            tree={tree}
            shown={shown}
            collapsed={collapsed}
            matches={matches}
            selected={selected}
            zoom={zoom}
            critical={critical}
            select={select}
            toggle={toggle}
          />
        )}
        {view === "flame" && <FlameGraph tree={tree} matches={matches} zoom={zoom} selected={selected} select={select} />}
        {view === "operations" && <OperationTable tree={tree} find={(name) => change({ find: name, view: null })} />}
        {view === "events" && (
          <EventList tree={tree} matches={matches} only={only} selected={selected} select={select} params={params} changed={props.again} />
        )}
        {selected >= 0 && <SpanPanel key={selected} tree={tree} row={selected} query={query} params={params} copied={() => told(tree, selected)} close={() => change({ span: null }, true)} />}
      </div>
    </>
  );
}

function Head(props: { tree: Tree }) {
  const { tree } = props;
  const { columns } = tree;
  const root = rootOf(tree);
  const complete = !tree.orphans.has(root);
  const startMs = Number(BigInt(columns.startUnixNano) / 1_000_000n);
  return (
    <header class="trace-head">
      <h1>
        <Service name={columns.services[columns.service[root]!]!} /> {columns.names[columns.name[root]!]!.slice(0, 300) || "(no name)"}
        {!complete && <span class="badge warn">no root yet</span>}
      </h1>
      <p class="trace-facts">
        <b>{durationText(tree.totalNs)}</b>
        <span>{timeText(startMs)}</span>
        <span>{countedText(tree.rows, "span")}</span>
        <span>{countedText(columns.services.length, "service")}</span>
        <span>{countedText(tree.deepest + 1, "level")}</span>
        <span class={tree.errors ? "bad-text" : "dim"}>{countedText(tree.errors, "error")}</span>
      </p>
      <p class="trace-do">
        <code>{columns.traceId}</code>
        <CopyButton text={columns.traceId} what="Copy ID" />
        <CopyButton text={() => told(tree)} what="Copy for an assistant" />
        <DownloadButton traceId={columns.traceId} what="JSON" type="application/json" ending="json" />
        <DownloadButton traceId={columns.traceId} what="OTLP" type="application/protobuf" ending="binpb" />
        <a href={`/plain/trace/${columns.traceId}`}>Without script</a>
        <AgainstBox tree={tree} />
      </p>
    </header>
  );
}

/** With what its exceptions say, where that can be asked. */
export async function told(tree: Tree, top = -1): Promise<string> {
  const events = await ask<EventColumns>(`/api/trace-view/${tree.columns.traceId}/events`).catch(() => null);
  return asText(tree, events?.version === tree.columns.version ? events : null, top);
}

interface Download {
  readonly traceId: string;
  readonly what: string;
  readonly type: string;
  readonly ending: string;
}

function DownloadButton(props: Download) {
  const [failed, setFailed] = useState("");
  const start = () =>
    download(props).then(
      () => setFailed(""),
      (error: unknown) => setFailed(error instanceof ApiError ? error.message : `${error}`),
    );
  return (
    <>
      <button type="button" class="quiet" title="The whole trace as a file" onClick={start}>
        Download {props.what}
      </button>
      {failed && (
        <span class="bad-text" role="alert">
          Not downloaded: {failed}
        </span>
      )}
    </>
  );
}

async function download({ traceId, type, ending }: Download): Promise<void> {
  const answer = await fetchApi(`/api/traces/${traceId}`, {}, { headers: { Accept: type } });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = `${traceId}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Part of the trace's time, from the URL: `from-to` in ns; all of it where that is none. */
function zoomOf(params: URLSearchParams, tree: Tree): Span {
  const [from, to] = (params.get("zoom") ?? "").split("-").map(Number);
  const fits = from !== undefined && to !== undefined && from >= 0 && to > from && to <= tree.totalNs;
  return fits ? [from, to] : [0, tree.totalNs];
}

function topOf(tree: Tree, row: number): number {
  while (tree.columns.parent[row]! >= 0) row = tree.columns.parent[row]!;
  return row;
}

/** The trace's own time, to the second, for what completion offers. */
function rangeAround(tree: Tree): Range {
  const startNs = BigInt(tree.columns.startUnixNano);
  const fromS = Number(startNs / 1_000_000_000n);
  return { since: "", fromS, toS: fromS + Math.ceil(tree.totalNs / 1e9) + 1 };
}
