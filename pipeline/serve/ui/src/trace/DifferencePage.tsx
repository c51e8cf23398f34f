/** Two traces side by side: which spans one has and the other has not, and where the time differs. */
import { useMemo } from "preact/hooks";
import { ask } from "../api/client";
import { useAnswer } from "../api/useAnswer";
import { countedText, countText, durationText, timeText } from "../format";
import { useKeys } from "../keys";
import { CopyButton } from "../parts/CopyButton";
import { Service } from "../parts/Service";
import { Empty, ErrorBox, Loading, PartialNote } from "../parts/States";
import { change, go, urlOf } from "../router";
import { type DifferenceRow, type Side, changeOf, differenceOf, weightOf } from "./difference";
import { type TraceColumns, type Tree, rootOf, treeOf } from "./model";

const SHOWN_MAX = 1000;

export function differenceUrl(a: string, b: string): string {
  return `/trace/${encodeURIComponent(a)}/against/${encodeURIComponent(b)}`;
}

function useTree(traceId: string) {
  const found = useAnswer((signal) => ask<TraceColumns>(`/api/trace-view/${encodeURIComponent(traceId)}`, {}, signal), [traceId]);
  const tree = useMemo(() => (found.value?.spanId.length ? treeOf(found.value) : undefined), [found.value]);
  return { found, tree };
}

export function DifferencePage(props: { a: string; b: string; params: URLSearchParams }) {
  const first = useTree(props.a);
  const second = useTree(props.b);
  const isRanked = props.params.get("sort") === "most";
  const isChanged = props.params.get("changed") === "1";
  const swap = () => go(urlOf(differenceUrl(props.b, props.a), {}, props.params));
  useKeys("Two traces", [
    { keys: "s", does: "the other way round", run: swap },
    { keys: "o", does: "most different first, or as a tree", run: () => change({ sort: isRanked ? null : "most" }, true) },
    { keys: "x", does: "only what was added, gone or failed, or all", run: () => change({ changed: isChanged ? null : "1" }, true) },
  ]);
  const rows = useMemo(() => {
    if (!first.tree || !second.tree) return [];
    const all = differenceOf(first.tree, second.tree).filter((row) => !isChanged || changeOf(row));
    return isRanked ? [...all].sort((one, other) => weightOf(other) - weightOf(one)) : all;
  }, [first.tree, second.tree, isRanked, isChanged]);
  const sides = [
    ["A", props.a, first],
    ["B", props.b, second],
  ] as const;
  return (
    <div class="page">
      <div class="bar">
        <h1>Two traces</h1>
        <div class="bar-end">
          <button type="button" aria-pressed={isRanked} onClick={() => change({ sort: isRanked ? null : "most" }, true)}>
            Most different first
          </button>
          <button type="button" aria-pressed={isChanged} onClick={() => change({ changed: isChanged ? null : "1" }, true)}>
            Only added, gone, failed
          </button>
          <button type="button" onClick={swap}>
            Swap
          </button>
          {rows.length > 0 && <CopyButton class="" text={asText(rows, props.a, props.b)} what="Copy as text" />}
        </div>
      </div>
      <div class="cards two-traces">
        {sides.map(([letter, id, { found, tree }]) => (
          <section key={letter} class="panel" aria-label={`Trace ${letter}`}>
            {found.error && <ErrorBox error={found.error} again={found.again} />}
            <PartialNote answer={found.value} />
            {found.loading && !found.value && <Loading what={`Trace ${letter} is being looked for`} />}
            {found.value && !tree && (
              <Empty title={`No span of trace ${letter} is known`}>
                <code>{id}</code>
              </Empty>
            )}
            {tree && <Facts letter={letter} tree={tree} />}
          </section>
        ))}
      </div>
      {rows.length > 0 && <Rows rows={rows.slice(0, SHOWN_MAX)} isTree={!isRanked && !isChanged} />}
      {rows.length > SHOWN_MAX && <p class="dim">{countText(rows.length - SHOWN_MAX)} more rows are not shown.</p>}
      {isChanged && first.tree && second.tree && !rows.length && <p>Both have the same spans, as often, and fail in the same places.</p>}
    </div>
  );
}

function Facts({ letter, tree }: { letter: string; tree: Tree }) {
  const { columns } = tree;
  const root = rootOf(tree);
  return (
    <>
      <h2>
        {letter} <Service name={columns.services[columns.service[root]!]!.slice(0, 60)} /> {columns.names[columns.name[root]!]!.slice(0, 100) || "(no name)"}
      </h2>
      <p class="trace-facts">
        <b>{durationText(tree.totalNs)}</b>
        <span>{timeText(Number(BigInt(columns.startUnixNano) / 1_000_000n))}</span>
        <span>{countedText(tree.rows, "span")}</span>
        <span class={tree.errors ? "bad-text" : "dim"}>{countedText(tree.errors, "error")}</span>
      </p>
      <a class="mono" href={`/trace/${columns.traceId}`}>
        {columns.traceId}
      </a>
    </>
  );
}

function Rows({ rows, isTree }: { rows: readonly DifferenceRow[]; isTree: boolean }) {
  const most = rows.reduce((found, { a, b }) => Math.max(found, a.totalNs, b.totalNs), 1);
  return (
    <div class="wide" tabIndex={0} role="region" aria-label="Differences">
      <table class="differences">
        <thead>
          <tr>
            <th>Span</th>
            <th class="number">A</th>
            <th class="number">B</th>
            <th>A above B</th>
            <th class="number">Difference</th>
            <th class="number">Own time</th>
            <th class="number">Spans A, B</th>
            <th>Changed</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key} class={!row.a.count ? "added" : !row.b.count ? "gone" : ""}>
              <td class="operation" style={{ paddingLeft: `${isTree ? Math.min(20, row.depth) * 12 : 0}px` }}>
                <Service name={row.service.slice(0, 60)} /> {row.name.slice(0, 120) || "(no name)"}
              </td>
              <td class="number">{told(row.a)}</td>
              <td class="number">{told(row.b)}</td>
              <td class="two-bars" aria-hidden="true">
                <i class="side-a" style={{ width: `${(row.a.totalNs / most) * 100}%` }} />
                <i class="side-b" style={{ width: `${(row.b.totalNs / most) * 100}%` }} />
              </td>
              <td class={row.b.totalNs > row.a.totalNs ? "number bad-text" : "number"}>{signed(row.b.totalNs - row.a.totalNs)}</td>
              <td class="number">{signed(row.b.selfNs - row.a.selfNs)}</td>
              <td class="number">
                {countText(row.a.count)}, {countText(row.b.count)}
              </td>
              <td>{changeOf(row) && <span class={/fails|only/.test(changeOf(row)) ? "badge warn" : "badge"}>{changeOf(row)}</span>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function told(side: Side): string {
  return side.count ? durationText(side.totalNs) : "–";
}

function signed(ns: number): string {
  return ns === 0 ? "0" : `${ns > 0 ? "+" : "−"}${durationText(Math.abs(ns))}`;
}

function asText(rows: readonly DifferenceRow[], a: string, b: string): string {
  const lines = rows.slice(0, 200).map((row) => {
    const changed = changeOf(row);
    return `${"  ".repeat(Math.min(20, row.depth))}- ${row.service}: ${row.name} A ${told(row.a)} B ${told(row.b)} (own time ${signed(row.b.selfNs - row.a.selfNs)})${changed && `, ${changed}`}`;
  });
  return [`trace A ${a} against trace B ${b}`, ...lines, ...(rows.length > 200 ? [`... and ${rows.length - 200} more rows`] : [])].join("\n");
}
