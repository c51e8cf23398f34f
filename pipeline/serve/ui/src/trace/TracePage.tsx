/** One trace: waterfall, flame graph, table of operations, one span in full, and a filter inside. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, ask, fetchApi } from "../api/client";
import { useAnswer } from "../api/useAnswer";
import { countText, durationText, timeText } from "../format";
import { useKeys } from "../keys";
import { CopyButton } from "../parts/CopyButton";
import { Service } from "../parts/Service";
import { Empty, ErrorBox, Loading, PartialNote } from "../parts/States";
import { change } from "../router";
import { FlameGraph } from "./FlameGraph";
import { Minimap } from "./Minimap";
import { OperationTable } from "./OperationTable";
import { SpanPanel } from "./SpanPanel";
import { Waterfall } from "./Waterfall";
import { type Span, type TraceColumns, type Tree, asText, nameOf, rootOf, rowOf, rowsWith, treeOf, visibleRows, withAncestors } from "./model";

const VIEWS = ["waterfall", "flame", "operations"] as const;
const COLLAPSED_BELOW = 5; // levels that a large trace shows at first
const LARGE = 2000;

interface Found {
  readonly columns: TraceColumns;
  /** Why the query could not be a filter inside one trace; empty where it was. */
  readonly unfit: string;
}

/** The trace with what the query matches; a query that is no filter inside a trace is left out, and said so. */
async function find(traceId: string, query: string, signal: AbortSignal): Promise<Found> {
  const path = `/api/trace-view/${encodeURIComponent(traceId)}`;
  try {
    return { columns: await ask<TraceColumns>(path, { q: query }, signal), unfit: "" };
  } catch (error) {
    if (!query || !(error instanceof ApiError) || error.status !== 400) throw error;
    return { columns: await ask<TraceColumns>(path, {}, signal), unfit: error.message };
  }
}

export function TracePage(props: { traceId: string; params: URLSearchParams }) {
  const query = props.params.get("q") ?? "";
  const found = useAnswer((signal) => find(props.traceId, query, signal), [props.traceId, query]);
  const columns = found.value?.columns;
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
      {tree && <Trace key={props.traceId} tree={tree} params={props.params} unfit={found.value!.unfit} />}
    </div>
  );
}

function Trace(props: { tree: Tree; params: URLSearchParams; unfit: string }) {
  const { tree, params } = props;
  const [collapsed, setCollapsed] = useState<ReadonlySet<number>>(() => (tree.rows > LARGE ? below(tree, COLLAPSED_BELOW) : new Set()));
  const text = params.get("find") ?? "";
  const only = params.get("only") === "1";
  const view = VIEWS.find((one) => one === params.get("view")) ?? "waterfall";
  const critical = params.get("critical") !== "0";
  const zoom = zoomOf(params, tree);
  const matches = useMemo(() => {
    const worded = rowsWith(tree, text);
    const queried = tree.columns.matched;
    if (worded && queried) return new Set(queried.filter((row) => worded.has(row)));
    return worded ?? (queried ? new Set(queried) : null);
  }, [tree, text]);
  const kept = useMemo(() => (only && matches ? withAncestors(tree, matches) : null), [tree, matches, only]);
  const shown = useMemo(() => visibleRows(tree, kept ? new Set() : collapsed, kept), [tree, collapsed, kept]);
  const wanted = params.get("span") ?? "";
  const selected = useMemo(() => (wanted ? rowOf(tree.columns, wanted) : -1), [tree, wanted]);
  const search = useRef<HTMLInputElement>(null);
  const select = (row: number) => row >= 0 && change({ span: nameOf(tree.columns, row) }, true);
  const toggle = (row: number) => setCollapsed((before) => changed(before, row));
  const ordered = useMemo(() => (matches ? [...matches].sort((a, b) => tree.place[a]! - tree.place[b]!) : []), [matches]);
  const jump = (by: number) => {
    if (!ordered.length) return;
    const at = ordered.indexOf(selected);
    const next = ordered[at < 0 ? (by > 0 ? 0 : ordered.length - 1) : (at + by + ordered.length) % ordered.length]!;
    setCollapsed((before) => opened(before, tree, next));
    select(next);
  };
  const step = (by: number) => select(shown[Math.max(0, Math.min(shown.length - 1, (selected < 0 ? -1 : shown.indexOf(selected)) + by))] ?? -1);
  const inward = () => selected >= 0 && (collapsed.has(selected) ? toggle(selected) : tree.size[selected]! > 1 && step(1));
  const outward = () => {
    if (selected < 0) return;
    if (tree.size[selected]! > 1 && !collapsed.has(selected)) toggle(selected);
    else select(tree.columns.parent[selected]!);
  };
  useEffect(() => {
    if (selected >= 0) setCollapsed((before) => opened(before, tree, selected));
  }, [selected, tree]);
  useKeys("Trace", [
    { keys: "j", does: "next span", run: () => step(1) },
    { keys: "ArrowDown", does: "next span", run: () => step(1) },
    { keys: "k", does: "span before", run: () => step(-1) },
    { keys: "ArrowUp", does: "span before", run: () => step(-1) },
    { keys: "ArrowRight", does: "open, or to the first child", run: inward },
    { keys: "ArrowLeft", does: "close, or to the parent", run: outward },
    { keys: "]", does: "open all", run: () => setCollapsed(new Set()) },
    { keys: "[", does: "close all", run: () => setCollapsed(below(tree, 1)) },
    { keys: "n", does: "next match", run: () => jump(1) },
    { keys: "N", does: "match before", run: () => jump(-1) },
    { keys: "f", does: "find in this trace", run: () => search.current?.focus() },
    { keys: "x", does: "only matches, or all", run: () => change({ only: only ? null : "1" }, true) },
    { keys: "p", does: "critical path on or off", run: () => change({ critical: critical ? "0" : null }, true) },
    { keys: "z", does: "the whole time", run: () => change({ zoom: null }, true) },
  ]);
  const setZoom = (next: Span | null) => change({ zoom: next && `${Math.round(next[0])}-${Math.round(next[1])}` }, true);
  return (
    <>
      <Head tree={tree} />
      {tree.columns.copies > 0 && <p class="dim">{tree.columns.copies} late copies of its spans are stored too, and left out.</p>}
      {props.unfit && <p class="dim">The query picks whole traces, so it marks no spans here: {props.unfit}</p>}
      <Minimap tree={tree} zoom={zoom} setZoom={setZoom} />
      <div class="bar trace-bar">
        <span class="group" role="group" aria-label="Shown as">
          {VIEWS.map((one) => (
            <button key={one} type="button" aria-pressed={one === view} onClick={() => change({ view: one === "waterfall" ? null : one }, true)}>
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
        <button type="button" aria-pressed={critical} onClick={() => change({ critical: critical ? "0" : null }, true)}>
          Critical path
        </button>
      </div>
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
        {view === "flame" && <FlameGraph tree={tree} zoom={zoom} selected={selected} select={select} />}
        {view === "operations" && <OperationTable tree={tree} find={(name) => change({ find: name, view: null })} />}
        {selected >= 0 && <SpanPanel key={selected} tree={tree} row={selected} close={() => change({ span: null }, true)} />}
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
        <span>{countText(tree.rows)} spans</span>
        <span>{columns.services.length} services</span>
        <span>{tree.deepest + 1} levels</span>
        <span class={tree.errors ? "bad-text" : "dim"}>{countText(tree.errors)} errors</span>
      </p>
      <p class="trace-do">
        <code>{columns.traceId}</code>
        <CopyButton text={columns.traceId} what="Copy ID" />
        <CopyButton text={asText(tree, durationText)} what="Copy as text" />
        <button type="button" class="quiet" onClick={() => download(columns.traceId, "application/json", "json")}>
          JSON
        </button>
        <button type="button" class="quiet" onClick={() => download(columns.traceId, "application/protobuf", "binpb")}>
          OTLP
        </button>
        <a href={`/plain/trace/${columns.traceId}`}>Without script</a>
      </p>
    </header>
  );
}

async function download(traceId: string, type: string, ending: string): Promise<void> {
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

/** The rows at this level that have others below. */
function below(tree: Tree, level: number): Set<number> {
  const found = new Set<number>();
  for (let row = 0; row < tree.rows; row++) if (tree.depth[row] === level - 1 && tree.size[row]! > 1) found.add(row);
  return found;
}

function changed(rows: ReadonlySet<number>, row: number): Set<number> {
  const next = new Set(rows);
  if (!next.delete(row)) next.add(row);
  return next;
}

/** With all ancestors of a row open. */
function opened(collapsed: ReadonlySet<number>, tree: Tree, row: number): ReadonlySet<number> {
  const closed: number[] = [];
  for (let at = tree.columns.parent[row]!; at >= 0; at = tree.columns.parent[at]!) if (collapsed.has(at)) closed.push(at);
  if (!closed.length) return collapsed;
  const next = new Set(collapsed);
  closed.forEach((one) => next.delete(one));
  return next;
}
