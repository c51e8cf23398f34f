/** Places for the services of a map: callers left of what they call, few crossings. */
import type { Call } from "./figures";

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

/** The longest way from a service that nobody calls; calls that close a circle do not count. */
function columnsOf(names: readonly string[], calls: readonly Call[]): Map<string, number> {
  const columns = new Map<string, number>();
  const called = new Set(calls.map((call) => call.to));
  const visit = (name: string, column: number, path: ReadonlySet<string>) => {
    if (path.has(name) || (columns.get(name) ?? -1) >= column) return;
    columns.set(name, column);
    const further = new Set(path).add(name);
    for (const call of calls) if (call.from === name) visit(call.to, column + 1, further);
  };
  for (const name of names) if (!called.has(name)) visit(name, 0, new Set());
  for (const name of names) if (!columns.has(name)) visit(name, 0, new Set());
  return columns;
}

function neighbours(name: string, calls: readonly Call[]): string[] {
  return calls.flatMap((call) => (call.from === name ? [call.to] : call.to === name ? [call.from] : []));
}

function middle(values: readonly number[], otherwise: number): number {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : otherwise;
}
