/** Metrics questions and their answers as columns. */
import type { HeatCells } from "../parts/HeatMap";
import { measuring } from "../query";
import type { Range } from "../range";
import { ask } from "./client";
import { type InstantAnswer, labelOf, type MetricsAnswer, type Partial, type Series } from "./types";

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

const PART_OF_ERRORS = 0.05;

/** A round step that makes at most so many points of a range. */
export function stepOf({ fromS, toS }: Range, points: number): number {
  const least = (toS - fromS) / points;
  return STEPS_S.find((step) => step >= least) ?? 86400;
}

/** Series over a range: `query | stage`. */
export function measureRange(query: string, stage: string, range: Range, points: number, signal: AbortSignal): Promise<MetricsAnswer> {
  return ask<MetricsAnswer>(
    "/api/metrics/query_range",
    { q: measuring(query, stage), start: range.fromS, end: range.toS, step: stepOf(range, points) },
    signal,
  );
}

/** One value a series for all of a range. */
export function measureOnce(query: string, stage: string, range: Range, signal: AbortSignal): Promise<InstantAnswer> {
  return ask<InstantAnswer>("/api/metrics/query", { q: measuring(query, stage), start: range.fromS, end: range.toS }, signal);
}

/** Spans a second, and those of them that failed. */
export interface Total {
  readonly name: string;
  readonly rate: number;
  readonly failed: number;
}

export interface Totals extends Partial {
  readonly rows: readonly Total[];
}

/** Totals by the values of an attribute. Exactly of the range: the points of a range stand for whole steps, which begin before it and end after it. */
export async function totalsBy(by: string, query: string, range: Range, signal: AbortSignal): Promise<Totals> {
  const answer = await measureOnce(query, `rate() by (${by}, status)`, range, signal);
  const found = new Map<string, { name: string; rate: number; failed: number }>();
  for (const one of answer.series ?? []) {
    const name = labelOf(one.labels, by) ?? "";
    const mine = found.get(name) ?? { name, rate: 0, failed: 0 };
    found.set(name, mine);
    mine.rate += one.value ?? 0;
    if (labelOf(one.labels, "status") === "error") mine.failed += one.value ?? 0;
  }
  return { rows: [...found.values()], ...(answer.status && { status: answer.status }), ...(answer.message && { message: answer.message }) };
}

/** Of those that have their part in the errors the one of which the largest share failed; undefined where none is worse than the others. */
export function failingMost(rows: readonly Total[]): Total | undefined {
  const share = (one: Total) => one.failed / one.rate;
  const least = PART_OF_ERRORS * rows.reduce((sum, one) => sum + one.failed, 0);
  const [worst] = rows.filter((one) => one.name && one.failed > least).sort((a, b) => share(b) - share(a));
  return worst && rows.some((one) => share(one) < share(worst)) ? worst : undefined;
}

/** The times of an answer, in Unix seconds: those of its longest series. */
export function timesOf(series: readonly Series[]): number[] {
  const longest = series.reduce<Series | undefined>((most, one) => (one.samples.length > (most?.samples.length ?? 0) ? one : most), undefined);
  return (longest?.samples ?? []).map((sample) => Number(sample.timestampMs) / 1000);
}

/** The sum of some series at each time; null where none has a point. */
export function summed(series: readonly Series[], timesS: readonly number[]): (number | null)[] {
  const sums = new Map<number, number>();
  for (const one of series) {
    for (const { timestampMs, value } of one.samples) {
      const at = Number(timestampMs) / 1000;
      sums.set(at, (sums.get(at) ?? 0) + (value ?? 0));
    }
  }
  return timesS.map((at) => sums.get(at) ?? null);
}

/** histogram_over_time(duration) as a heat map: every power of two between the least and the greatest has a row. */
export function heatCells(series: readonly Series[]): HeatCells {
  const timesS = timesOf(series);
  const column = new Map(timesS.map((at, c) => [at, c]));
  const byPower = new Map<number, Series>();
  for (const one of series) {
    const bound = Number(labelOf(one.labels, "__bucket"));
    if (bound > 0 && one.samples.some((sample) => sample.value)) byPower.set(Math.round(Math.log2(bound * 1e9)), one);
  }
  const powers = [...byPower.keys()].sort((a, b) => a - b);
  if (!powers.length) return { timesS: [], boundsNs: [], counts: [] };
  const rows = Array.from({ length: powers.at(-1)! - powers[0]! + 1 }, (_, r) => powers[0]! + r);
  const counts = rows.map((power) => {
    const row = new Array<number>(timesS.length).fill(0);
    for (const { timestampMs, value } of byPower.get(power)?.samples ?? []) {
      const c = column.get(Number(timestampMs) / 1000);
      if (c !== undefined) row[c] = value ?? 0;
    }
    return row;
  });
  return { timesS, boundsNs: rows.map((power) => 2 ** power), counts };
}
