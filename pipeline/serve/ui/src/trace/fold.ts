/**
 * Which rows are closed, as the URL tells it: how all stand at first, then the spans that stand otherwise.
 * `open` and `closed` for all; without a word large traces are closed below some levels.
 */
import { type TraceColumns, type Tree, nameOf } from "./model";

const COLLAPSED_BELOW = 5; // levels that a large trace shows at first
const LARGE = 2000;
const NAMED_MAX = 60; // spans that a URL names; the rest stand as at first

export type Closed = ReadonlySet<number>;
const WORDS = ["open", "closed"] as const;
type Word = (typeof WORDS)[number] | "";

function atFirst(tree: Tree, word: Word): Set<number> {
  if (word === "open" || (word === "" && tree.rows <= LARGE)) return new Set();
  return below(tree, word === "closed" ? 1 : COLLAPSED_BELOW);
}

/** The rows at this level that have others below. */
function below(tree: Tree, level: number): Set<number> {
  const found = new Set<number>();
  for (let row = 0; row < tree.rows; row++) if (tree.depth[row] === level - 1 && tree.size[row]! > 1) found.add(row);
  return found;
}

export function closedRows(tree: Tree, text: string): Closed {
  const { word, names } = read(text);
  const found = atFirst(tree, word);
  if (!names.size) return found;
  for (let row = 0; row < tree.rows; row++) {
    const { columns } = tree;
    if (!names.has(columns.spanId[row]!) && !names.has(`${columns.spanId[row]}.${columns.kind[row]}`)) continue;
    if (names.has(nameOf(columns, row)) && !found.delete(row)) found.add(row);
  }
  return found;
}

/** As the URL tells it; "" where all stand as they do at first. */
export function foldText(tree: Tree, text: string, closed: Closed): string {
  const { word } = read(text);
  const first = atFirst(tree, word);
  const changed: string[] = [];
  const note = (columns: TraceColumns, row: number) => changed.length < NAMED_MAX && changed.push(nameOf(columns, row));
  for (const row of closed) if (!first.has(row)) note(tree.columns, row);
  for (const row of first) if (!closed.has(row)) note(tree.columns, row);
  return [word, ...changed].join("~").replace(/^~$/, "");
}

function read(text: string): { word: Word; names: ReadonlySet<string> } {
  const [first = "", ...names] = text.split("~");
  return { word: WORDS.find((one) => one === first) ?? "", names: new Set(names) };
}

export function turned(closed: Closed, row: number): Closed {
  const next = new Set(closed);
  if (!next.delete(row)) next.add(row);
  return next;
}

/** With all ancestors of a row open. */
export function opened(closed: Closed, tree: Tree, row: number): Closed {
  const above: number[] = [];
  for (let at = row < 0 ? -1 : tree.columns.parent[row]!; at >= 0; at = tree.columns.parent[at]!) if (closed.has(at)) above.push(at);
  if (!above.length) return closed;
  const next = new Set(closed);
  above.forEach((one) => next.delete(one));
  return next;
}

/** Does the row stand below the other? */
export function isBelow(tree: Tree, row: number, other: number): boolean {
  const at = row < 0 ? -1 : tree.place[row]!;
  return at > tree.place[other]! && at < tree.place[other]! + tree.size[other]!;
}
