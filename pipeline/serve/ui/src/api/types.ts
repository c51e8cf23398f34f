/** What the API answers, as far as the page reads it. 64-bit numbers are texts; what is zero is left out. */

export interface AnyValue {
  stringValue?: string;
  intValue?: string;
  doubleValue?: number | string;
  boolValue?: boolean;
  bytesValue?: string;
  arrayValue?: { values?: AnyValue[] };
  kvlistValue?: { values?: KeyValue[] };
}

export interface KeyValue {
  key: string;
  value: AnyValue;
}

/** An answer that may not be complete says so. */
export interface Partial {
  status?: "PARTIAL";
  message?: string;
}

export interface FoundSpan {
  spanID: string;
  name?: string;
  startTimeUnixNano?: string;
  durationNanos?: string;
  attributes?: KeyValue[];
}

export interface SpanSet {
  spans: FoundSpan[];
  matched: number;
  attributes?: KeyValue[];
}

export interface FoundTrace {
  traceID: string;
  rootServiceName?: string;
  rootTraceName?: string;
  startTimeUnixNano?: string;
  durationMs?: number;
  serviceStats?: Record<string, { spanCount?: number; errorCount?: number }>;
  spanSets?: SpanSet[];
}

export interface SearchAnswer extends Partial {
  traces: FoundTrace[];
  nextCursor?: string;
  complete: boolean;
  metrics?: Record<string, unknown>;
}

export interface Sample {
  timestampMs: string;
  value?: number;
}

export interface Exemplar {
  labels?: KeyValue[];
  value?: number;
  timestampMs?: string;
}

export interface Series {
  labels?: KeyValue[];
  samples: Sample[];
  exemplars?: Exemplar[];
}

export interface MetricsAnswer extends Partial {
  series: Series[];
}

export interface InstantSeries {
  labels?: KeyValue[];
  value?: number;
}

export interface InstantAnswer extends Partial {
  series?: InstantSeries[];
}

export interface TagScopes extends Partial {
  scopes: { name: string; tags: string[] }[];
}

export interface TagValues extends Partial {
  tagValues: { type: string; value: string }[];
}

export interface ServicesAnswer extends Partial {
  services: Record<string, Record<string, number>>;
  complete: boolean;
}

export interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name?: string;
  kind?: string;
  startTimeUnixNano?: string;
  endTimeUnixNano?: string;
  attributes?: KeyValue[];
  events?: { timeUnixNano?: string; name?: string; attributes?: KeyValue[] }[];
  links?: { traceId: string; spanId: string; attributes?: KeyValue[] }[];
  status?: { code?: string; message?: string };
  traceState?: string;
}

export interface ResourceSpans {
  resource?: { attributes?: KeyValue[] };
  scopeSpans?: { scope?: { name?: string; version?: string; attributes?: KeyValue[] }; spans?: OtlpSpan[] }[];
}

export interface TraceAnswer extends Partial {
  trace: { resourceSpans?: ResourceSpans[] };
}

/** A value as text. */
export function valueText(value: AnyValue | undefined): string {
  if (!value) return "";
  if (value.arrayValue) return `[${(value.arrayValue.values ?? []).map(valueText).join(", ")}]`;
  if (value.kvlistValue) {
    return `{${(value.kvlistValue.values ?? []).map((pair) => `${pair.key}: ${valueText(pair.value)}`).join(", ")}}`;
  }
  const plain = value.stringValue ?? value.intValue ?? value.doubleValue ?? value.boolValue ?? value.bytesValue;
  return plain === undefined ? "" : `${plain}`;
}

/** The value of a label or attribute; undefined where there is none. */
export function labelOf(pairs: readonly KeyValue[] | undefined, key: string): string | undefined {
  const found = pairs?.find((pair) => pair.key === key);
  return found && valueText(found.value);
}
