/** A trace as a tree over columns: which rows are shown, what took the time. No object a span. */
import type { Partial } from "../api/types";

/** The answer of /api/trace-view: rows by start; parent is a row or -1; start counts from the trace's first start. */
export interface TraceColumns extends Partial {
  readonly traceId: string;
  readonly copies: number;
  /** Rows of other answers about the trace are these where it is the same. */
  readonly version: string;
  readonly startUnixNano: string;
  readonly names: readonly string[];
  readonly services: readonly string[];
  readonly spanId: readonly string[];
  readonly name: readonly number[];
  readonly service: readonly number[];
  readonly parent: readonly number[];
  readonly start: readonly number[];
  readonly duration: readonly number[];
  readonly kind: readonly number[];
  readonly code: readonly number[];
  readonly events: readonly number[];
  readonly orphans: readonly number[];
}

export const STATUS_ERROR = 2;
export const KINDS = ["unspecified", "internal", "server", "client", "producer", "consumer"] as const;
/** From and to, ns from the trace's start. */
export type Span = readonly [number, number];

export interface Tree {
  readonly columns: TraceColumns;
  readonly rows: number;
  /** Every row, parents before children, children by start. */
  readonly order: Int32Array;
  /** Of each row its place in `order`, its depth, and how many rows its subtree has, itself included. */
  readonly place: Int32Array;
  readonly depth: Int32Array;
  readonly size: Int32Array;
  /** Errors below a row, itself not included. */
  readonly errorsBelow: Int32Array;
  /** Time in which no child was at work. */
  readonly selfNs: Float64Array;
  readonly totalNs: number;
  readonly errors: number;
  readonly deepest: number;
  readonly orphans: ReadonlySet<number>;
  /** When a row is what the trace waits for; in no order. */
  readonly critical: ReadonlyMap<number, Span[]>;
}

/** The first row that names no parent; where none came yet, the first of all. */
export function rootOf(tree: Tree): number {
  for (const row of tree.order) if (tree.columns.parent[row] === -1 && !tree.orphans.has(row)) return row;
  return tree.order[0]!;
}

/** A span as the URL names it: its ID, and its kind where a client and a server share one. */
export function nameOf(columns: TraceColumns, row: number): string {
  const id = columns.spanId[row]!;
  return columns.spanId.indexOf(id) === row ? id : `${id}.${columns.kind[row]}`;
}

/** The row that such a name means; -1 where there is none. */
export function rowOf(columns: TraceColumns, name: string): number {
  const [id, kind] = name.split(".");
  const first = columns.spanId.indexOf(id!);
  if (kind === undefined || first < 0) return first;
  return columns.spanId.findIndex((one, row) => one === id && `${columns.kind[row]}` === kind);
}

export function endOf(columns: TraceColumns, row: number): number {
  return columns.start[row]! + Math.max(0, columns.duration[row]!);
}

export function treeOf(columns: TraceColumns): Tree {
  const rows = columns.spanId.length;
  const children = childrenOf(columns);
  const order = new Int32Array(rows);
  const place = new Int32Array(rows);
  const depth = new Int32Array(rows);
  const waiting = [...(children.get(-1) ?? [])].reverse();
  let at = 0;
  while (waiting.length) {
    const row = waiting.pop()!;
    place[row] = at;
    order[at++] = row;
    const below = children.get(row);
    for (let child = (below?.length ?? 0) - 1; child >= 0; child--) {
      depth[below![child]!] = depth[row]! + 1;
      waiting.push(below![child]!);
    }
  }
  const size = new Int32Array(rows).fill(1);
  const errorsBelow = new Int32Array(rows);
  let errors = 0;
  let totalNs = 0;
  for (let place_ = rows - 1; place_ >= 0; place_--) {
    const row = order[place_]!;
    const failed = columns.code[row] === STATUS_ERROR ? 1 : 0;
    errors += failed;
    totalNs = Math.max(totalNs, endOf(columns, row));
    const parent = columns.parent[row]!;
    if (parent >= 0) {
      size[parent]! += size[row]!;
      errorsBelow[parent]! += errorsBelow[row]! + failed;
    }
  }
  return {
    columns,
    rows,
    order,
    place,
    depth,
    size,
    errorsBelow,
    selfNs: selfTimes(columns, children),
    totalNs: Math.max(1, totalNs),
    errors,
    deepest: depth.reduce((most, one) => Math.max(most, one), 0),
    orphans: new Set(columns.orphans),
    critical: criticalPath(columns, children),
  };
}

function childrenOf(columns: TraceColumns): Map<number, number[]> {
  const children = new Map<number, number[]>();
  columns.parent.forEach((parent, row) => {
    const known = children.get(parent);
    if (known) known.push(row);
    else children.set(parent, [row]);
  });
  return children;
}

function selfTimes(columns: TraceColumns, children: ReadonlyMap<number, number[]>): Float64Array {
  const self = new Float64Array(columns.spanId.length);
  for (let row = 0; row < self.length; row++) {
    const end = endOf(columns, row);
    let free = columns.start[row]!;
    let idle = 0;
    for (const child of children.get(row) ?? []) {
      const from = Math.min(end, columns.start[child]!);
      idle += Math.max(0, from - free);
      free = Math.max(free, Math.min(end, endOf(columns, child)));
    }
    self[row] = idle + Math.max(0, end - free);
  }
  return self;
}

/**
 * What the longest root waits for, from its end backwards: the child that ends last, before it the child that had ended
 * when that one began, and so on; between them the parent itself. What goes on behind its parent's end does not count.
 */
function criticalPath(columns: TraceColumns, children: ReadonlyMap<number, number[]>): Map<number, Span[]> {
  const found = new Map<number, Span[]>();
  const roots = children.get(-1) ?? [];
  const first = roots.reduce((best, row) => (best < 0 || columns.duration[row]! > columns.duration[best]! ? row : best), -1);
  if (first < 0) return found;
  const waiting: [number, number, number][] = [[first, columns.start[first]!, endOf(columns, first)]];
  while (waiting.length) {
    const [row, from, until] = waiting.pop()!;
    const own: Span[] = [];
    let at = until;
    const byEnd = [...(children.get(row) ?? [])].sort((a, b) => endOf(columns, b) - endOf(columns, a));
    for (const child of byEnd) {
      const begin = Math.max(from, columns.start[child]!);
      const end = Math.min(until, endOf(columns, child));
      if (end <= begin || end > at) continue; // it was still at work when the one waited for began
      if (end < at) own.push([end, at]);
      waiting.push([child, begin, end]);
      at = begin;
    }
    if (at > from) own.push([from, at]);
    found.set(row, [...(found.get(row) ?? []), ...own]);
  }
  return found;
}

/** The rows to show, in order. kept: null shows all; what is below a collapsed row is not shown. */
export function visibleRows(tree: Tree, collapsed: ReadonlySet<number>, kept: ReadonlySet<number> | null): number[] {
  const shown: number[] = [];
  for (let at = 0; at < tree.rows; ) {
    const row = tree.order[at]!;
    if (kept === null || kept.has(row)) shown.push(row);
    at += collapsed.has(row) ? tree.size[row]! : 1;
  }
  return shown;
}

/** Rows and all their ancestors. */
export function withAncestors(tree: Tree, rows: Iterable<number>): Set<number> {
  const kept = new Set<number>();
  for (const one of rows) {
    for (let row = one; row >= 0 && !kept.has(row); row = tree.columns.parent[row]!) kept.add(row);
  }
  return kept;
}

const UNIT_NS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9 };

/**
 * The rows that a text finds: every word in name, service or span ID; `>10ms` and `>2.5%` (of the trace) by duration,
 * `error` by status. Null where the text is empty.
 */
export function rowsWith(tree: Tree, text: string): Set<number> | null {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const tests = words.map((word) => testOf(tree, word));
  const found = new Set<number>();
  for (let row = 0; row < tree.rows; row++) if (tests.every((test) => test(row))) found.add(row);
  return found;
}

function testOf({ columns, totalNs }: Tree, word: string): (row: number) => boolean {
  const longer = /^>(\d+(?:\.\d+)?)(%|ns|us|µs|ms|s)$/.exec(word);
  if (longer) {
    const least = Number(longer[1]) * (longer[2] === "%" ? totalNs / 100 : UNIT_NS[longer[2]!]!);
    return (row) => columns.duration[row]! > least;
  }
  if (word === "error") return (row) => columns.code[row] === STATUS_ERROR;
  const has = (texts: readonly string[]) => texts.map((one) => one.toLowerCase().includes(word));
  const names = has(columns.names);
  const services = has(columns.services);
  return (row) => names[columns.name[row]!]! || services[columns.service[row]!]! || columns.spanId[row]!.startsWith(word);
}

export interface OperationRow {
  readonly service: string;
  readonly name: string;
  readonly count: number;
  readonly totalNs: number;
  readonly selfNs: number;
  readonly longestNs: number;
  readonly errors: number;
}

/** Spans by service and operation, the most self time first. */
export function operationsOf(tree: Tree): OperationRow[] {
  const { columns } = tree;
  const sums = new Map<number, { count: number; totalNs: number; selfNs: number; longestNs: number; errors: number }>();
  for (let row = 0; row < tree.rows; row++) {
    const key = columns.service[row]! * columns.names.length + columns.name[row]!;
    const sum = sums.get(key) ?? { count: 0, totalNs: 0, selfNs: 0, longestNs: 0, errors: 0 };
    sum.count++;
    sum.totalNs += columns.duration[row]!;
    sum.selfNs += tree.selfNs[row]!;
    sum.longestNs = Math.max(sum.longestNs, columns.duration[row]!);
    sum.errors += columns.code[row] === STATUS_ERROR ? 1 : 0;
    sums.set(key, sum);
  }
  return [...sums]
    .map(([key, sum]) => ({
      service: columns.services[Math.floor(key / columns.names.length)]!,
      name: columns.names[key % columns.names.length]!,
      ...sum,
    }))
    .sort((a, b) => b.selfNs - a.selfNs || a.name.localeCompare(b.name));
}
