/** A trace, or what is below one of its spans, as text that fits a question to a person or an assistant. */
import { durationText } from "../format";
import { STATUS_ERROR, type Tree, withAncestors } from "./model";

const LINES_MAX = 200;
const INDENT_MAX = 20;

/** What spans say beside their times: events as /api/trace-view/{id}/events tells them. */
export interface Said {
  readonly row: readonly number[];
  readonly name: readonly string[];
  readonly text: readonly string[];
}

/**
 * The tree, a line a span, with what exceptions say below theirs. Of more spans than fit those that failed, then those
 * that the trace waits for, then those with the most self time, each with its ancestors.
 */
export function asText(tree: Tree, said: Said | null = null, top = -1, linesMax = LINES_MAX): string {
  const { columns } = tree;
  const rows = top < 0 ? tree.order : tree.order.subarray(tree.place[top]!, tree.place[top]! + tree.size[top]!);
  const told = rows.length <= linesMax ? rows : worthTelling(tree, rows, linesMax);
  const exceptions = new Map<number, string[]>();
  said?.row.forEach((row, at) => {
    if (said.name[at] === "exception") exceptions.set(row, [...(exceptions.get(row) ?? []), said.text[at]!]);
  });
  const what = top < 0 ? `trace ${columns.traceId}` : `span ${columns.spanId[top]} of trace ${columns.traceId}, and what is below it`;
  const long = top < 0 ? tree.totalNs : columns.duration[top]!;
  const failed = rows.reduce((count, row) => count + (columns.code[row] === STATUS_ERROR ? 1 : 0), 0);
  const started = new Date(Number(BigInt(columns.startUnixNano) / 1_000_000n)).toISOString();
  const lines = [`${what}: ${rows.length} spans, ${durationText(long)}, ${failed} errors; the trace started ${started}`];
  const least = top < 0 ? 0 : tree.depth[top]!;
  for (const row of told) {
    const indent = "  ".repeat(Math.min(INDENT_MAX, tree.depth[row]! - least));
    const times = `${durationText(columns.duration[row]!)} (self ${durationText(tree.selfNs[row]!)}) at +${durationText(columns.start[row]!)}`;
    const marks = `${columns.code[row] === STATUS_ERROR ? " ERROR" : ""}${tree.critical.has(row) ? " critical-path" : ""}`;
    lines.push(`${indent}- ${columns.services[columns.service[row]!]}: ${columns.names[columns.name[row]!]} ${times}${marks} [${columns.spanId[row]}]`);
    for (const text of exceptions.get(row) ?? []) lines.push(`${indent}  exception: ${text}`);
  }
  if (told.length < rows.length) lines.push(`... and ${rows.length - told.length} more spans, which neither failed nor took long`);
  return lines.join("\n");
}

function worthTelling(tree: Tree, rows: Int32Array, linesMax: number): number[] {
  const rank = (row: number) => (tree.columns.code[row] === STATUS_ERROR ? 2 : tree.critical.has(row) ? 1 : 0);
  const byWorth = [...rows].sort((a, b) => rank(b) - rank(a) || tree.selfNs[b]! - tree.selfNs[a]!);
  const inside = new Set(rows);
  const kept = new Set<number>();
  for (const row of byWorth.slice(0, linesMax)) {
    const more = [...withAncestors(tree, [row])].filter((one) => inside.has(one) && !kept.has(one));
    if (kept.size + more.length > linesMax) continue;
    more.forEach((one) => kept.add(one));
  }
  return [...rows].filter((row) => kept.has(row));
}
