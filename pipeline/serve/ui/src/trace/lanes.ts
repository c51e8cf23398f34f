/** Lines for an icicle: spans below their parents, and below each other where they overlap in time. */
import { type Tree, endOf } from "./model";

export interface Lanes {
  /** Of each row its line; -1 where it has none. */
  readonly lane: Int32Array;
  readonly count: number;
  /** Rows without a line. */
  readonly left: number;
}

/** At most `most` lines; each row takes the first free one below its parent's, by start. */
export function lanesOf(tree: Tree, most: number): Lanes {
  const { columns } = tree;
  const byStart = Int32Array.from(columns.start.keys()).sort((a, b) => columns.start[a]! - columns.start[b]! || tree.place[a]! - tree.place[b]!);
  const lane = new Int32Array(tree.rows).fill(-1);
  const busyUntil: number[] = [];
  let left = 0;
  for (const row of byStart) {
    const parent = columns.parent[row]!;
    const start = columns.start[row]!;
    // A clock that goes wrong starts a child before its parent, which has no line then
    let at = Math.max(tree.depth[row]!, parent < 0 ? 0 : lane[parent]! + 1);
    while (at < most && (busyUntil[at] ?? 0) > start) at++;
    if (at >= most) left++;
    else {
      lane[row] = at;
      busyUntil[at] = endOf(columns, row);
    }
  }
  return { lane, count: Math.min(most, busyUntil.length), left };
}
