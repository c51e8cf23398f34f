import assert from "node:assert/strict";
import { test } from "node:test";
import { failingMost, heatCells, stepOf, summed, timesOf } from "../src/api/measure";
import { colourNumber } from "../src/colour";
import { ranked } from "../src/compare/ranked";
import { bytesText, countedText, countText, durationText, percentText, rateText } from "../src/format";
import { rangeOf } from "../src/range";
import { placed } from "../src/services/layout";

const label = (key: string, text: string) => ({ key, value: { stringValue: text } });

test("numbers are told with three digits and a unit", () => {
  assert.deepEqual([0, 999, 1500, 12_345_678, 2.5e9, 61e9, 3700e9, -5e6].map(durationText), ["0 ns", "999 ns", "1.5 µs", "12.3 ms", "2.5 s", "1 min 1 s", "1 h 1 min", "-5 ms"]);
  assert.deepEqual([0, 9999, 12_345, 2.5e6].map(countText), ["0", "9,999", "12.3 k", "2.5 M"]);
  assert.deepEqual([0, 1, 2].map((count) => countedText(count, "span")), ["0 spans", "1 span", "2 spans"]);
  assert.deepEqual([0, 0.0004, 0.05, 1.5, 25_000].map((rate) => rateText(rate)), ["0/s", "1.44/h", "3/min", "1.5/s", "25 k/s"]);
  assert.deepEqual([0, 0.0004, 0.05, 1.5].map((rate) => rateText(rate, 1.5)), ["0/s", "< 0.001/s", "0.05/s", "1.5/s"]);
  assert.deepEqual([0, 0.0001, 0.105, 1].map(percentText), ["0 %", "< 0.1 %", "10.5 %", "100 %"]);
  assert.equal(bytesText(2_500_000), "2.5 MB");
});

test("a range is the last hour unless the URL says another", () => {
  const now = 1_700_000_000_000;
  assert.deepEqual(rangeOf(new URLSearchParams(""), now), { since: "1h", fromS: 1_699_996_400, toS: 1_700_000_000 });
  assert.deepEqual(rangeOf(new URLSearchParams("since=5m"), now).fromS, 1_699_999_700);
  assert.deepEqual(rangeOf(new URLSearchParams("from=10&to=20"), now), { since: "", fromS: 10, toS: 20 });
  assert.equal(rangeOf(new URLSearchParams("since=5x&from=20&to=10"), now).since, "1h");
  assert.equal(stepOf({ since: "", fromS: 0, toS: 3600 }, 75), 60);
});

test("a heat map has a row for every power of two between its least and greatest", () => {
  const at = (ms: string, value?: number) => ({ timestampMs: ms, ...(value && { value }) });
  const bucket = (ns: number, samples: ReturnType<typeof at>[]) => ({ labels: [{ key: "__bucket", value: { doubleValue: ns / 1e9 } }], samples });
  const cells = heatCells([bucket(2 ** 22, [at("1000", 3), at("2000")]), bucket(2 ** 20, [at("1000"), at("2000", 1)]), bucket(2 ** 25, [at("1000"), at("2000")])]);
  assert.deepEqual(cells, { timesS: [1, 2], boundsNs: [2 ** 20, 2 ** 21, 2 ** 22], counts: [[0, 1], [0, 0], [3, 0]] });
  assert.deepEqual(heatCells([]), { timesS: [], boundsNs: [], counts: [] });
  const series = [{ samples: [at("1000", 2)] }, { samples: [at("1000", 1), at("2000")] }];
  assert.deepEqual([timesOf(series), summed(series, [1, 2, 3])], [[1, 2], [3, 0, null]]);
});

test("attributes are ranked by how much their values' shares differ", () => {
  const row = (side: string, key: string, value: string, count: number) => ({ labels: [label("__meta_type", side), label(key, value)], value: count });
  const comparison = ranked([
    row("selection", "span.version", "2", 9), row("selection", "span.version", "1", 1), row("selection_total", "span.version", "nil", 10),
    row("baseline", "span.version", "1", 100), row("baseline_total", "span.version", "nil", 100),
    row("selection", "kind", "server", 10), row("selection_total", "kind", "nil", 10),
    row("baseline", "kind", "server", 100), row("baseline_total", "kind", "nil", 100),
  ]);
  assert.deepEqual([comparison.selectionSpans, comparison.baselineSpans], [10, 100]);
  assert.deepEqual(comparison.attributes.map((one) => one.name), ["span.version", "kind"]);
  assert.deepEqual(comparison.attributes[0]!.values[0], { value: "2", literal: '"2"', selection: 0.9, baseline: 0 });
  assert.equal(comparison.attributes[1]!.values[0]!.literal, "server");
  assert.equal(comparison.attributes[1]!.difference, 0);
});

test("callers stand left of what they call, circles included", () => {
  const call = (from: string, to: string) => ({ from, to, rate: 1, errorShare: 0 });
  const column = (calls: ReturnType<typeof call>[], alone: string[] = []) => Object.fromEntries(placed(calls, alone).map((node) => [node.name, node.column]));
  assert.deepEqual(column([call("a", "b"), call("b", "c"), call("a", "c")], ["lonely"]), { a: 0, b: 1, c: 2, lonely: 0 });
  assert.deepEqual(Object.keys(column([call("x", "y"), call("y", "x"), call("z", "z")])), ["x", "y", "z"]);
});

test("a map where everybody calls everybody is no wider than it must be", () => {
  const names = Array.from({ length: 12 }, (_, at) => `s${at}`);
  const calls = names.flatMap((from) => names.map((to) => ({ from, to, rate: from === "s3" ? 9 : 1, errorShare: 0 })));
  const nodes = placed(calls);
  assert.deepEqual([nodes.find((node) => node.column === 0)!.name, Math.max(...nodes.map((node) => node.column))], ["s3", 1]);
  const beside = placed([...calls, { from: "x", to: "y", rate: 1, errorShare: 0 }], ["lonely"]);
  assert.deepEqual([...new Set(beside.filter((node) => node.column === 0).map((node) => node.name))], ["lonely", "s3", "x"]);
  const line = names.slice(1).map((to, at) => ({ from: names[at]!, to, rate: 1, errorShare: 0 }));
  assert.equal(placed(line).length, 12);
});

test("a service has the same colour everywhere, and colours are spread", () => {
  const names = Array.from({ length: 240 }, (_, at) => `service-${at}`);
  const counts = new Map<number, number>();
  for (const name of names) counts.set(colourNumber(name), (counts.get(colourNumber(name)) ?? 0) + 1);
  assert.equal(counts.size, 12);
  assert.ok(Math.max(...counts.values()) < 40);
  assert.equal(colourNumber("checkout"), colourNumber("checkout"));
  assert.equal(colourNumber("x".repeat(10_000)), colourNumber(`${"x".repeat(40)}…`));
});

test("the service that fails is the one of which the largest share failed, of those that have their part in the errors", () => {
  const behind = { name: "payment", rate: 2, failed: 1 };
  const before = { name: "frontend", rate: 8, failed: 1 };
  const rare = { name: "report", rate: 0.05, failed: 0.05 };
  assert.equal(failingMost([before, behind, rare]), behind);
  assert.equal(failingMost([behind]), undefined);
  assert.equal(failingMost([{ ...before, failed: 0 }, { ...behind, failed: 0 }]), undefined);
});
