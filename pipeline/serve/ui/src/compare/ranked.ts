/** compare()'s counts, attribute by attribute, ranked by how much selection and baseline differ. */
import { type InstantSeries, labelOf, valueText } from "../api/types";
import { typedLiteral, quoted } from "../query";

export interface ComparedValue {
  readonly value: string;
  /** As it stands in a query. */
  readonly literal: string;
  /** Shares of the spans of each side that have this value. */
  readonly selection: number;
  readonly baseline: number;
}

export interface ComparedAttribute {
  readonly name: string;
  /** 0: the same on both sides, 1: nothing in common. */
  readonly difference: number;
  readonly values: readonly ComparedValue[];
  /** Shares of the spans that have the attribute at all. */
  readonly hasSelection: number;
  readonly hasBaseline: number;
}

export interface Comparison {
  readonly attributes: readonly ComparedAttribute[];
  readonly selectionSpans: number;
  readonly baselineSpans: number;
}

interface Counted {
  selection: Map<string, { count: number; literal: string }>;
  baseline: Map<string, { count: number; literal: string }>;
  totals: { selection: number; baseline: number };
}

export function ranked(series: readonly InstantSeries[]): Comparison {
  const found = new Map<string, Counted>();
  for (const one of series) {
    const side = labelOf(one.labels, "__meta_type") ?? "";
    const label = one.labels?.find((pair) => pair.key !== "__meta_type");
    if (!label) continue;
    const counted = found.get(label.key) ?? { selection: new Map(), baseline: new Map(), totals: { selection: 0, baseline: 0 } };
    found.set(label.key, counted);
    const count = one.value ?? 0;
    if (side === "selection_total") counted.totals.selection += count;
    else if (side === "baseline_total") counted.totals.baseline += count;
    else if (side === "selection" || side === "baseline") {
      const value = valueText(label.value);
      counted[side].set(value, { count, literal: literalOf(label.key, label.value.stringValue !== undefined, value) });
    }
  }
  // Every span has a kind, known or not: the spans of a side are those of the attribute that most have
  const totals = [...found.values()].map((one) => one.totals);
  const selectionSpans = Math.max(0, ...totals.map((one) => one.selection));
  const baselineSpans = Math.max(0, ...totals.map((one) => one.baseline));
  const attributes = [...found].map(([name, counted]) => compared(name, counted, selectionSpans || 1, baselineSpans || 1));
  attributes.sort((a, b) => b.difference - a.difference || (a.name < b.name ? -1 : 1));
  return { attributes, selectionSpans, baselineSpans };
}

function literalOf(name: string, isString: boolean, value: string): string {
  if (name === "status" || name === "kind") return value;
  return isString ? quoted(value) : typedLiteral(name, value);
}

function compared(name: string, { selection, baseline, totals }: Counted, selectionSpans: number, baselineSpans: number): ComparedAttribute {
  const values = [...new Set([...selection.keys(), ...baseline.keys()])].map((value) => ({
    value,
    literal: (selection.get(value) ?? baseline.get(value))!.literal,
    selection: (selection.get(value)?.count ?? 0) / selectionSpans,
    baseline: (baseline.get(value)?.count ?? 0) / baselineSpans,
  }));
  values.sort((a, b) => Math.abs(b.selection - b.baseline) - Math.abs(a.selection - a.baseline));
  const hasSelection = totals.selection / selectionSpans;
  const hasBaseline = totals.baseline / baselineSpans;
  return { name, values, hasSelection, hasBaseline, difference: difference(values, hasSelection, hasBaseline) };
}

/** The greatest difference of one value's shares; of values seen once each nothing can be learnt, so they count little. */
function difference(values: readonly ComparedValue[], hasSelection: number, hasBaseline: number): number {
  const greatest = Math.max(0, ...values.map((one) => Math.abs(one.selection - one.baseline)));
  return Math.max(greatest, Math.abs(hasSelection - hasBaseline) * 0.5);
}
