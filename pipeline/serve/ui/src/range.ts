/** The time range of a view: `since=1h`, or `from` and `to` in Unix seconds. */
export interface Range {
  /** "" where from and to are given. */
  readonly since: string;
  readonly fromS: number;
  readonly toS: number;
}

export const SINCE = ["5m", "15m", "1h", "3h", "6h", "12h", "24h", "3d", "7d"] as const;
export const SINCE_DEFAULT = "1h";
const UNIT_S: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400 };

/** Seconds of "15m"; 0 where it is none. */
export function sinceSeconds(text: string): number {
  const found = /^(\d{1,6})([smhd])$/.exec(text);
  return found ? Number(found[1]) * UNIT_S[found[2]!]! : 0;
}

export function rangeOf(params: URLSearchParams, nowMs = Date.now()): Range {
  const from = Number(params.get("from"));
  const to = Number(params.get("to"));
  if (from > 0 && to > from) return { since: "", fromS: Math.floor(from), toS: Math.ceil(to) };
  const given = params.get("since") ?? "";
  const since = sinceSeconds(given) ? given : SINCE_DEFAULT;
  const toS = Math.ceil(nowMs / 1000);
  return { since, fromS: toS - sinceSeconds(since), toS };
}

/** As parameters of the page's URL. */
export function rangeParams(range: { fromS: number; toS: number } | string): Record<string, string | null> {
  if (typeof range === "string") return { since: range === SINCE_DEFAULT ? null : range, from: null, to: null };
  return { since: null, from: `${Math.floor(range.fromS)}`, to: `${Math.ceil(range.toS)}` };
}

/** As parameters of the API. */
export function apiRange(range: Range): { start: number; end: number } {
  return { start: range.fromS, end: range.toS };
}
