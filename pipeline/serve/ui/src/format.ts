/** Numbers, durations and times for people. */

const UNITS: readonly (readonly [string, number])[] = [
  ["h", 3600e9],
  ["min", 60e9],
  ["s", 1e9],
  ["ms", 1e6],
  ["µs", 1e3],
];

/** A duration in ns: three digits and a unit. */
export function durationText(ns: number): string {
  if (!Number.isFinite(ns)) return "–";
  const size = Math.abs(ns);
  const sign = ns < 0 ? "-" : "";
  if (size >= 60e9) {
    const [unit, factor, below] = size >= 3600e9 ? (["h", 3600e9, "min"] as const) : (["min", 60e9, "s"] as const);
    const whole = Math.floor(size / factor);
    const rest = Math.floor((size - whole * factor) / (factor / 60));
    return `${sign}${whole} ${unit}${rest ? ` ${rest} ${below}` : ""}`;
  }
  for (const [unit, factor] of UNITS) {
    if (size >= factor) return `${sign}${threeDigits(size / factor)} ${unit}`;
  }
  return `${sign}${Math.round(size)} ns`;
}

export function threeDigits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return Number(value.toPrecision(3)).toString();
}

/** A count: 1,234, or 12.3 k from ten thousand on. */
export function countText(count: number): string {
  if (count < 10_000) return Math.round(count).toLocaleString("en");
  if (count < 1e6) return `${threeDigits(count / 1e3)} k`;
  return count < 1e9 ? `${threeDigits(count / 1e6)} M` : `${threeDigits(count / 1e9)} G`;
}

/** A count with its noun: "1 span", "2 spans". */
export function countedText(count: number, noun: string): string {
  return `${countText(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** A rate: by the second, or by minute or hour where it is small. like: the rate that chooses the unit, of those to be compared. */
export function rateText(perS: number, like = perS): string {
  const [seconds, unit] = like === 0 || like >= 0.1 ? [1, "s"] : like * 60 >= 0.1 ? [60, "min"] : [3600, "h"];
  const rate = perS * seconds;
  if (rate > 0 && rate < 0.001) return `< 0.001/${unit}`;
  return `${rate >= 1000 ? countText(rate) : threeDigits(rate)}/${unit}`;
}

export function percentText(share: number): string {
  const percent = share * 100;
  if (percent === 0) return "0 %";
  return percent < 0.1 ? "< 0.1 %" : `${percent >= 99.95 ? 100 : threeDigits(percent)} %`;
}

export function bytesText(bytes: number): string {
  for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]] as const) {
    if (bytes >= factor) return `${threeDigits(bytes / factor)} ${unit}`;
  }
  return `${bytes} B`;
}

/** A moment in this browser's time zone, to the millisecond. */
export function timeText(unixMs: number): string {
  const at = new Date(unixMs);
  if (Number.isNaN(at.getTime())) return `${unixMs}`;
  return `${dayText(unixMs)} ${clockText(unixMs)}.${pad(at.getMilliseconds(), 3)}`;
}

export function dayText(unixMs: number): string {
  const at = new Date(unixMs);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
}

export function clockText(unixMs: number): string {
  const at = new Date(unixMs);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

/** How long ago, roughly. */
export function agoText(unixMs: number, nowMs = Date.now()): string {
  const seconds = Math.max(0, (nowMs - unixMs) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 2 * 86400 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86400)} d ago`;
}

/** The browser's time zone, named. */
export function zoneText(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
}

function pad(value: number, digits = 2): string {
  return `${value}`.padStart(digits, "0");
}
