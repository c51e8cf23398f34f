import assert from "node:assert/strict";
import { test } from "node:test";
import { asText } from "../src/trace/asText";
import { changeOf, differenceOf, weightOf } from "../src/trace/difference";
import { closedRows, foldText, isBelow, opened, turned } from "../src/trace/fold";
import { lanesOf } from "../src/trace/lanes";
import { type TraceColumns, operationsOf, rowsWith, treeOf, visibleRows, withAncestors } from "../src/trace/model";

/** Rows of [parent, start, duration, name, status]. */
function columnsOf(...rows: readonly (readonly [number, number, number, string, number?])[]): TraceColumns {
  const names = [...new Set(rows.map((row) => row[3]))];
  return {
    traceId: "0a".repeat(16),
    copies: 0,
    version: "1",
    startUnixNano: "1700000000000000000",
    names,
    services: ["shop"],
    spanId: rows.map((_, row) => `${row}`.padStart(16, "0")),
    name: rows.map((row) => names.indexOf(row[3])),
    service: rows.map(() => 0),
    parent: rows.map((row) => row[0]),
    start: rows.map((row) => row[1]),
    duration: rows.map((row) => row[2]),
    kind: rows.map(() => 1),
    code: rows.map((row) => row[4] ?? 0),
    events: rows.map(() => 0),
    orphans: [],
  };
}

const SHOP = columnsOf([-1, 0, 100, "root"], [0, 10, 30, "a"], [0, 50, 40, "b"], [1, 15, 10, "a"], [2, 60, 60, "late", 2]);

test("rows stand below their parents, children by start", () => {
  const tree = treeOf(SHOP);
  assert.deepEqual([...tree.order], [0, 1, 3, 2, 4]);
  assert.deepEqual([...tree.depth], [0, 1, 1, 2, 2]);
  assert.deepEqual([...tree.size], [5, 2, 2, 1, 1]);
  assert.deepEqual([tree.totalNs, tree.errors, tree.deepest], [120, 1, 2]);
  assert.deepEqual([...tree.errorsBelow], [1, 0, 1, 0, 0]);
});

test("self time is what no child was at work in, and a child beyond its parent's end does not count", () => {
  assert.deepEqual([...treeOf(SHOP).selfNs], [30, 20, 10, 10, 60]);
});

test("self times agree with counting every nanosecond", () => {
  const random = (seed: number) => () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648;
  for (let seed = 1; seed <= 200; seed++) {
    const next = random(seed);
    const starts = Array.from({ length: 8 }, () => Math.floor(next() * 30)).sort((a, b) => a - b);
    const rows = starts.map((start, row) => [row ? Math.floor(next() * row) : -1, start, Math.floor(next() * 20), `op${row}`] as const);
    const tree = treeOf(columnsOf(...rows));
    rows.forEach(([, start, duration], row) => {
      let free = 0;
      for (let at = start; at < start + duration; at++) {
        const busy = rows.some(([parent, from, long]) => parent === row && from <= at && at < from + long);
        free += busy ? 0 : 1;
      }
      assert.equal(tree.selfNs[row], free, `seed ${seed}, row ${row}`);
    });
    let waited = 0;
    for (const parts of tree.critical.values()) for (const [from, to] of parts) waited += to - from;
    assert.equal(waited, Math.max(...rows.filter(([parent]) => parent === -1).map(([, , long]) => long)), `seed ${seed}`);
  }
});

test("the critical path goes through who ends last, and what its parent does not wait for is cut", () => {
  const parts = Object.fromEntries(treeOf(SHOP).critical);
  assert.deepEqual(parts, { 0: [[90, 100], [40, 50], [0, 10]], 1: [[25, 40], [10, 15]], 2: [[50, 60]], 3: [[15, 25]], 4: [[60, 90]] });
});

test("what is below a collapsed row is not shown, and only matches stand with their ancestors", () => {
  const tree = treeOf(SHOP);
  assert.deepEqual(visibleRows(tree, new Set([1]), null), [0, 1, 2, 4]);
  assert.deepEqual(visibleRows(tree, new Set(), withAncestors(tree, [4])), [0, 2, 4]);
});

test("words, durations, shares and errors find rows", () => {
  const tree = treeOf(SHOP);
  assert.equal(rowsWith(tree, "  "), null);
  assert.deepEqual([...rowsWith(tree, "A")!], [1, 3, 4]); // late has an a, too
  assert.deepEqual([...rowsWith(tree, "error")!], [4]);
  assert.deepEqual([...rowsWith(tree, ">50%")!], [0]);
  assert.deepEqual([...rowsWith(tree, "shop >39ns")!], [0, 2, 4]);
});

test("operations are summed, and a trace is told as text", () => {
  const tree = treeOf(SHOP);
  const sums = operationsOf(tree).find((row) => row.name === "a")!;
  assert.deepEqual([sums.count, sums.totalNs, sums.selfNs, sums.longestNs], [2, 40, 30, 30]);
  assert.ok(/late 60 ns \(self 60 ns\) at \+60 ns ERROR critical-path/.test(asText(tree)));
});

test("a trace that is too long is told by what failed and what took long, with what exceptions say", () => {
  const tree = treeOf(SHOP);
  const said = { row: [4, 1], name: ["exception", "note"], text: ["TimeoutError: too late", "no matter"] };
  const lines = asText(tree, said, -1, 3).split("\n");
  assert.deepEqual(
    lines.slice(1).map((line) => line.replace(/ \d.*/, "")),
    ["- shop: root", "  - shop: b", "    - shop: late", "      exception: TimeoutError: too late", "... and"],
  );
  assert.ok(/and 2 more spans/.test(lines.at(-1)!));
});

test("what is below one span is told alone", () => {
  const lines = asText(treeOf(SHOP), null, 1).split("\n");
  assert.ok(/^span 0000000000000001 of trace .*: 2 spans, 30 ns, 0 errors/.test(lines[0]!));
  assert.deepEqual(lines.slice(1).map((line) => line.slice(0, 11)), ["- shop: a 3", "  - shop: a"]);
});

test("which rows are closed is told by the URL and read from it", () => {
  const tree = treeOf(SHOP);
  assert.deepEqual([...closedRows(tree, "")], []);
  assert.deepEqual([...closedRows(tree, "closed")], [0]);
  for (const word of ["", "open", "closed"]) {
    for (const rows of [[], [0], [1, 2], [0, 2]]) {
      const text = foldText(tree, word, new Set(rows));
      assert.deepEqual([...closedRows(tree, text)].sort(), rows, `${word} ${rows}: ${text}`);
    }
  }
  assert.equal(foldText(tree, "", new Set()), "");
  assert.deepEqual([...closedRows(tree, "none of~these~are names")], []);
});

test("a row that is to be seen has its ancestors open, and what stands below another is known", () => {
  const tree = treeOf(SHOP);
  assert.deepEqual([...opened(new Set([0, 1, 2]), tree, 4)], [1]);
  assert.deepEqual([...turned(turned(new Set([0]), 0), 1)], [1]);
  assert.deepEqual([isBelow(tree, 4, 2), isBelow(tree, 2, 2), isBelow(tree, 3, 2), isBelow(tree, -1, 2)], [true, false, false, false]);
});

test("two traces meet by the way of their spans, and what one has alone is told", () => {
  const other = columnsOf([-1, 0, 130, "root"], [0, 10, 30, "a"], [0, 45, 10, "a"], [0, 60, 65, "b"], [3, 70, 5, "new"]);
  const rows = differenceOf(treeOf(SHOP), treeOf(other));
  assert.deepEqual(rows.map((row) => [row.depth, row.name, row.a.count, row.b.count, changeOf(row)]), [
    [0, "root", 1, 1, ""],
    [1, "a", 1, 2, "+1 span"],
    [2, "a", 1, 0, "only in A"],
    [1, "b", 1, 1, ""],
    [2, "late", 1, 0, "only in A"],
    [2, "new", 0, 1, "only in B"],
  ]);
  assert.deepEqual([rows[1]!.a.totalNs, rows[1]!.b.totalNs, weightOf(rows[1]!)], [30, 40, 20]);
  const failed = differenceOf(treeOf(columnsOf([-1, 0, 1, "op", 2])), treeOf(columnsOf([-1, 0, 1, "op"])));
  assert.equal(changeOf(failed[0]!), "fails in A");
});

test("a trace of 100,000 spans, and a chain as deep, are laid out in a moment", () => {
  const wide = columnsOf(...Array.from({ length: 100_000 }, (_, row) => [row ? Math.floor((row - 1) / 10) : -1, row, 1000, "op"] as const));
  const deep = columnsOf(...Array.from({ length: 100_000 }, (_, row) => [row - 1, row, 200_000 - row, "op"] as const));
  const began = performance.now();
  assert.equal(visibleRows(treeOf(wide), new Set(), null).length, 100_000);
  assert.equal(treeOf(deep).deepest, 99_999);
  assert.ok(performance.now() - began < 5000);
});

test("spans that overlap stand on lines of their own, below their parents", () => {
  const tree = treeOf(columnsOf([-1, 0, 100, "root"], [0, 10, 40, "a"], [0, 20, 40, "b"], [0, 60, 10, "c"], [1, 25, 10, "below a"]));
  assert.deepEqual([...lanesOf(tree, 9).lane], [0, 1, 2, 1, 3]);
  assert.deepEqual([lanesOf(tree, 9).count, lanesOf(tree, 9).left], [4, 0]);
  assert.deepEqual([[...lanesOf(tree, 2).lane], lanesOf(tree, 2).left], [[0, 1, -1, 1, -1], 2]);
});
