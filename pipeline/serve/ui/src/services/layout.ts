/** Places for the services of a map: callers left of what they call, few crossings. */
import type { Call } from "./figures";

const COLUMNS_MAX = 8;
const DENSE_CALLS = 4; // a service

export interface Node {
  readonly name: string;
  readonly column: number;
  readonly row: number;
}

export function placed(calls: readonly Call[], alone: readonly string[] = []): Node[] {
  const names = [...new Set([...calls.flatMap((call) => [call.from, call.to]), ...alone])].sort();
  const columns = columnsOf(names, calls);
  const byColumn: string[][] = [];
  for (const name of names) (byColumn[columns.get(name)!] ??= []).push(name);
  const row = new Map<string, number>();
  const renumber = () => byColumn.forEach((column) => column?.forEach((name, r) => row.set(name, r - (column.length - 1) / 2)));
  renumber();
  for (let pass = 0; pass < 4; pass++) {
    for (const column of byColumn) {
      const weight = (name: string) => middle(neighbours(name, calls).map((one) => row.get(one) ?? 0), row.get(name)!);
      column?.sort((a, b) => weight(a) - weight(b));
    }
    renumber();
  }
  return names.map((name) => ({ name, column: columns.get(name)!, row: row.get(name)! }));
}

/** The longest way from a service that nobody calls; the shortest where everybody calls everybody, and that is too wide. */
function columnsOf(names: readonly string[], calls: readonly Call[]): Map<string, number> {
  if (calls.length > DENSE_CALLS * names.length) return shortest(names, calls);
  const columns = longest(names, calls);
  return Math.max(0, ...columns.values()) < COLUMNS_MAX ? columns : shortest(names, calls);
}

/** Services that nobody calls; without any, the one that calls most more than it is called. */
function rootsOf(names: readonly string[], calls: readonly Call[]): string[] {
  const called = new Set(calls.filter((call) => call.from !== call.to).map((call) => call.to));
  const roots = names.filter((name) => !called.has(name));
  return roots.length ? roots : [...names].sort((a, b) => surplus(b, calls) - surplus(a, calls)).slice(0, 1);
}

/** How much more it calls than it is called. */
function surplus(name: string, calls: readonly Call[]): number {
  return calls.reduce((sum, call) => sum + (call.from === name ? call.rate : 0) - (call.to === name ? call.rate : 0), 0);
}

function shortest(names: readonly string[], calls: readonly Call[]): Map<string, number> {
  const columns = new Map<string, number>();
  // A circle that no root leads to begins with one of its own
  for (let rest = names; rest.length; rest = names.filter((name) => !columns.has(name))) {
    for (const root of rootsOf(rest, calls.filter((call) => !columns.has(call.from)))) columns.set(root, 0);
    for (let column = 0; column < names.length; column++) {
      for (const call of calls) {
        if (columns.get(call.from) === column && !columns.has(call.to)) columns.set(call.to, column + 1);
      }
    }
  }
  return columns;
}

/** Calls that close a circle do not count. */
function longest(names: readonly string[], calls: readonly Call[]): Map<string, number> {
  const columns = new Map<string, number>();
  const visit = (name: string, column: number, path: ReadonlySet<string>) => {
    if (path.has(name) || (columns.get(name) ?? -1) >= column) return;
    columns.set(name, column);
    const further = new Set(path).add(name);
    for (const call of calls) if (call.from === name) visit(call.to, column + 1, further);
  };
  for (let rest = names; rest.length; rest = names.filter((name) => !columns.has(name))) {
    for (const root of rootsOf(rest, calls.filter((call) => !columns.has(call.from)))) visit(root, 0, new Set());
  }
  return columns;
}

function neighbours(name: string, calls: readonly Call[]): string[] {
  return calls.flatMap((call) => (call.from === name ? [call.to] : call.to === name ? [call.from] : []));
}

function middle(values: readonly number[], otherwise: number): number {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : otherwise;
}
