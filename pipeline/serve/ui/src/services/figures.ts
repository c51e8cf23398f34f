/** Rate, errors and durations of services or operations, from the metrics API. */
import { measureOnce, measureRange, summed, timesOf, totalsBy } from "../api/measure";
import { labelOf, type Partial } from "../api/types";
import type { Range } from "../range";

const SPARK_POINTS = 40;
export const ENTRY = '(kind = server || kind = consumer || span:parentID = "0000000000000000")';

export interface Figures {
  readonly name: string;
  readonly rate: number;
  readonly errorShare: number;
  readonly p50Ns: number;
  readonly p95Ns: number;
  readonly p99Ns: number;
  /** Spans a second over time. */
  readonly spark: readonly (number | null)[];
}

/** Of some rates the highest: it chooses the unit of all. */
export function highestRate(rows: readonly { readonly rate: number }[]): number {
  return rows.reduce((most, { rate }) => Math.max(most, rate), 0);
}

export interface FiguresAnswer extends Partial {
  readonly rows: readonly Figures[];
}

/** by: the attribute that the rows are of. */
export async function figuresBy(by: string, query: string, range: Range, signal: AbortSignal): Promise<FiguresAnswer> {
  const [over, totals, quantiles] = await Promise.all([
    measureRange(query, `rate() by (${by})`, range, SPARK_POINTS, signal),
    totalsBy(by, query, range, signal),
    measureOnce(query, `quantile_over_time(duration, .5, .95, .99) by (${by})`, range, signal),
  ]);
  const durations = new Map<string, Map<number, number>>();
  for (const one of quantiles.series ?? []) {
    const name = labelOf(one.labels, by) ?? "";
    const mine = durations.get(name) ?? new Map<number, number>();
    mine.set(Number(labelOf(one.labels, "p")), (one.value ?? 0) * 1e9);
    durations.set(name, mine);
  }
  const lines = new Map(over.series.map((one) => [labelOf(one.labels, by) ?? "", [one]]));
  const times = timesOf(over.series);
  const rows = totals.rows.map(({ name, rate, failed }): Figures => {
    const at = durations.get(name);
    const quantile = (q: number) => at?.get(q) ?? NaN;
    return {
      name,
      rate,
      errorShare: rate ? failed / rate : 0,
      p50Ns: quantile(0.5),
      p95Ns: quantile(0.95),
      p99Ns: quantile(0.99),
      spark: summed(lines.get(name) ?? [], times),
    };
  });
  const partial = [over, totals, quantiles].find((one) => one.status === "PARTIAL");
  return { rows, ...(partial?.status && { status: partial.status }), ...(partial?.message && { message: partial.message }) };
}

export interface Call {
  readonly from: string;
  readonly to: string;
  readonly rate: number;
  readonly errorShare: number;
}

export interface CallsAnswer extends Partial {
  readonly calls: readonly Call[];
}

const PARENT = "parent.resource.service.name";
const CHILD = "resource.service.name";

/** Who calls whom: spans whose parent is of another service. */
export async function callsOf(range: Range, signal: AbortSignal): Promise<CallsAnswer> {
  const answer = await measureOnce(`{ ${PARENT} != ${CHILD} }`, `rate() by (${PARENT}, ${CHILD}, status)`, range, signal);
  const found = new Map<string, { from: string; to: string; rate: number; failed: number }>();
  for (const one of answer.series ?? []) {
    const from = labelOf(one.labels, PARENT) ?? "";
    const to = labelOf(one.labels, CHILD) ?? "";
    const key = JSON.stringify([from, to]);
    const call = found.get(key) ?? { from, to, rate: 0, failed: 0 };
    call.rate += one.value ?? 0;
    if (labelOf(one.labels, "status") === "error") call.failed += one.value ?? 0;
    found.set(key, call);
  }
  const calls = [...found.values()].map(({ failed, ...call }) => ({ ...call, errorShare: call.rate ? failed / call.rate : 0 }));
  return { calls, ...(answer.status && { status: answer.status }), ...(answer.message && { message: answer.message }) };
}
