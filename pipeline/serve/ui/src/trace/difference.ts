/** Two traces, one on the other: spans meet by their way from the root, service and operation of each step. */
import type { Tree } from "./model";

export interface Side {
  readonly count: number;
  readonly errors: number;
  /** Of all its spans together. */
  readonly totalNs: number;
  readonly selfNs: number;
}

export interface DifferenceRow {
  readonly key: number;
  readonly depth: number;
  readonly service: string;
  readonly name: string;
  readonly a: Side;
  readonly b: Side;
}

interface Node {
  readonly service: string;
  readonly name: string;
  readonly depth: number;
  readonly sides: readonly [Sum, Sum];
  readonly children: Map<string, Node>;
}
type Sum = { -readonly [key in keyof Side]: Side[key] };

const nothing = (): Sum => ({ count: 0, errors: 0, totalNs: 0, selfNs: 0 });
const node = (service: string, name: string, depth: number): Node => ({ service, name, depth, sides: [nothing(), nothing()], children: new Map() });

/** Rows parents first, in the order in which the first trace has them, then the second. */
export function differenceOf(a: Tree, b: Tree): DifferenceRow[] {
  const top = node("", "", -1);
  add(top, a, 0);
  add(top, b, 1);
  const rows: DifferenceRow[] = [];
  const waiting = [...top.children.values()].reverse();
  while (waiting.length) {
    const { service, name, depth, sides, children } = waiting.pop()!;
    rows.push({ key: rows.length, depth, service, name, a: sides[0], b: sides[1] });
    waiting.push(...[...children.values()].reverse());
  }
  return rows;
}

function add(top: Node, tree: Tree, side: 0 | 1): void {
  const { columns } = tree;
  const nodes = new Array<Node>(tree.rows);
  for (const row of tree.order) {
    const parent = columns.parent[row]!;
    const above = parent < 0 ? top : nodes[parent]!;
    const service = columns.services[columns.service[row]!]!;
    const name = columns.names[columns.name[row]!]!;
    const key = JSON.stringify([service, name]);
    const mine = above.children.get(key) ?? node(service, name, above.depth + 1);
    above.children.set(key, mine);
    nodes[row] = mine;
    const sum = mine.sides[side];
    sum.count++;
    sum.errors += columns.code[row] === 2 ? 1 : 0;
    sum.totalNs += Math.max(0, columns.duration[row]!);
    sum.selfNs += tree.selfNs[row]!;
  }
}

/** By how much own time a row differs; what is on one side alone differs by all of it. */
export function weightOf({ a, b }: DifferenceRow): number {
  return Math.abs(a.selfNs - b.selfNs);
}

/** In a few words; empty where both are alike but for their times. */
export function changeOf({ a, b }: DifferenceRow): string {
  if (!a.count) return "only in B";
  if (!b.count) return "only in A";
  const told = [];
  if (a.count !== b.count) told.push(`${b.count > a.count ? "+" : "−"}${Math.abs(b.count - a.count)} ${Math.abs(b.count - a.count) === 1 ? "span" : "spans"}`);
  if (a.errors !== b.errors) told.push(b.errors > a.errors ? "fails in B" : "fails in A");
  return told.join(", ");
}
