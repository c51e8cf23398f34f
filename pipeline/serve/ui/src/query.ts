/** TraceQL as the page writes it: names and values quoted where they must be, conditions added, simple queries read. */

export const OPERATORS = ["=", "!=", "=~", "!~", ">", ">=", "<", "<="] as const;
export type Operator = (typeof OPERATORS)[number];

export interface Condition {
  readonly name: string;
  readonly op: Operator;
  /** As it stands in the query: quoted where it is a string. */
  readonly value: string;
}

export interface Token {
  readonly text: string;
  readonly at: number;
  readonly kind: "string" | "name" | "operator" | "punctuation";
}

const TOKEN =
  /(?<string>"(?:[^"\\]|\\.)*"?|`[^`]*`?)|(?<punctuation>&&|\|\||!=|!~|=~|>=|<=|&?>>|&?<<|[{}()=<>~!|,&^]|\s+)|(?<name>(?:"(?:[^"\\]|\\.)*"?|[^\s{}()=~!<>&|^,"`])+)/gy;
const INTRINSICS = new Set(["duration", "name", "status", "statusMessage", "kind", "rootName", "rootServiceName", "traceDuration"]);
const NUMBER = "(?:\\d+\\.?\\d*|\\.\\d+)";
const WORDS = "nil|true|false|error|ok|unset|unspecified|internal|server|client|producer|consumer";
const DURATION = `(?:${NUMBER}(?:ns|us|µs|μs|ms|s|m|h|d|w|y))+`;
const KEYWORDS = new RegExp(`^(?:${WORDS}|-?${NUMBER}|-?${DURATION})$`);
const IS_DURATION = new RegExp(`^${DURATION}$`);
const IS_NUMBER = new RegExp(`^${NUMBER}$`);

/** The tokens of a text, whole or not; what cannot be read stands as punctuation. */
export function tokens(text: string): Token[] {
  const found: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match) {
      TOKEN.lastIndex = at + 1;
      continue;
    }
    const groups = match.groups!;
    if (groups["punctuation"]?.trim() === "") continue;
    const kind = groups["string"] !== undefined ? "string" : groups["name"] !== undefined ? "name" : "punctuation";
    const operator = kind === "punctuation" && (OPERATORS as readonly string[]).includes(match[0]);
    found.push({ text: match[0], at, kind: operator ? "operator" : kind });
  }
  return found;
}

const ESCAPES: Readonly<Record<string, string>> = { "\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const SHORT: Readonly<Record<string, string>> = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

export function quoted(text: string): string {
  return `"${text.replace(/[\\"\n\r\t]/g, (one) => ESCAPES[one]!)}"`;
}

/** A query without line breaks, as a field of one line shows it; its comments go on to mean the same. */
export function oneLine(query: string): string {
  return query.replace(/"(?:[^"\\]|\\.)*"|`[^`]*`|\/\*.*?\*\/|\/\/([^\n]*)|\s*\n\s*/gs, (found, comment?: string) => {
    if (comment !== undefined) return `/*${comment.replace(/\*\//g, "")} */`;
    if (!found.trim()) return " ";
    return found.startsWith("`") && found.includes("\n") ? quoted(found.slice(1, -1)) : found.replace(/\s*\n\s*/g, " ");
  });
}

/** An attribute of a scope; its key in quotes where it would end otherwise. */
export function attributeName(scope: string, key: string): string {
  if (scope === "intrinsic") return key;
  return /^[^\s{}()=~!<>&|^,"`\\]+$/.test(key) ? `${scope}.${key}` : `${scope}.${quoted(key)}`;
}

/** A value as it stands in a query, by the type that the API names. */
export function valueLiteral(type: string, value: string): string {
  return type === "string" ? quoted(value) : value;
}

/** What somebody typed into a field as a value: numbers, durations and words as they are, the rest as a string. */
export function typedLiteral(name: string, typed: string, op: Operator = "="): string {
  const text = typed.trim();
  if (isWhole(text)) return text;
  if (op === "=~" || op === "!~") return quoted(text);
  if (/service\.name$|^(name|statusMessage|rootName|rootServiceName)$|^span:name$/.test(name)) return quoted(text);
  return KEYWORDS.test(text) ? text : quoted(text);
}

/** Is it one string with its quotes? */
function isWhole(text: string): boolean {
  return /^("(?:[^"\\]|\\.)*"|`[^`]*`)$/s.test(text);
}

/** A duration as somebody types it, `1.5 s` or `100` for milliseconds; null where it is none. */
export function durationLiteral(typed: string): string | null {
  const text = typed.toLowerCase().replace(/\s+/g, "").replace(/min/g, "m");
  if (IS_NUMBER.test(text)) return `${text}ms`;
  return IS_DURATION.test(text) ? text : null;
}

export function conditionText({ name, op, value }: Condition): string {
  return `${name} ${op} ${value}`;
}

export function spanset(conditions: readonly Condition[]): string {
  return conditions.length ? `{ ${conditions.map(conditionText).join(" && ")} }` : "";
}

/** The query without a condition of it, so that there is something to compare with; as it is where it is no simple one. */
export function withoutCondition(query: string, one: Condition): string {
  const text = conditionText(one);
  const conditions = conditionsOf(query);
  return conditions ? spanset(conditions.filter((each) => conditionText(each) !== text)) : query;
}

/** The inside of a query that is one spanset; null for anything else. */
export function insideOf(query: string): string | null {
  const all = tokens(query);
  if (!all.length) return "";
  if (all[0]!.text !== "{" || all.findIndex((one) => one.text === "}") !== all.length - 1) return null;
  const inside = query.slice(all[0]!.at + 1, all.at(-1)!.at).trim();
  return inside === "true" ? "" : inside;
}

/** The query with one more condition on its spans. */
export function withCondition(query: string, condition: string): string {
  const inside = insideOf(query);
  if (inside === "") return `{ ${condition} }`;
  if (inside !== null) {
    return `{ ${isConjunction(inside) ? inside : `(${inside})`} && ${condition} }`;
  }
  return `(${query.trim()}) && { ${condition} }`;
}

function isConjunction(inside: string): boolean {
  let depth = 0;
  for (const { text } of tokens(inside)) {
    depth += text === "(" ? 1 : text === ")" ? -1 : 0;
    if (depth === 0 && text === "||") return false;
  }
  return true;
}

/** The conditions of a query that is nothing but some, joined by &&; null for anything else. */
export function conditionsOf(query: string): Condition[] | null {
  const inside = insideOf(query);
  if (inside === null) return null;
  if (inside === "") return [];
  const found: Condition[] = [];
  const all = tokens(inside);
  for (let at = 0; at < all.length; at += 4) {
    const [name, op, value, joined] = all.slice(at, at + 4);
    const isCondition =
      name?.kind === "name" && op?.kind === "operator" && (value?.kind === "string" || value?.kind === "name");
    if (!isCondition || (joined && joined.text !== "&&") || (joined && at + 4 >= all.length)) return null;
    if (value.kind === "name" && !KEYWORDS.test(value.text)) return null;
    found.push({ name: name.text, op: op.text as Operator, value: value.text });
  }
  return found;
}

/** A literal without its quotes. */
export function unquoted(literal: string): string {
  if (literal.startsWith("`")) return literal.slice(1, -1);
  if (!literal.startsWith('"')) return literal;
  const escape = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))/gs;
  return literal.slice(1, -1).replace(escape, (_, byte?: string, four?: string, eight?: string, octal?: string, one?: string) => {
    if (one !== undefined) return SHORT[one] ?? one;
    const code = octal ? parseInt(octal, 8) : parseInt((byte ?? four ?? eight)!, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
}

/** A search with more of each span told: `| select(...)`. */
export function selecting(query: string, names: readonly string[]): string {
  return names.length ? `${query || "{}"} | select(${names.join(", ")})` : query || "{}";
}

/** A metrics query over the spans that a search finds. */
export function measuring(query: string, stage: string): string {
  return `${query.trim() || "{}"} | ${stage} with(exemplars=false)`;
}

export function isIntrinsic(name: string): boolean {
  return INTRINSICS.has(name) || /^(span|trace|event|link|instrumentation):/.test(name);
}

/** Where an error of the API points to: an offset into the query on one line; null where it names no place. */
export function errorOffset(query: string, sentence: string): number | null {
  const found = /at line (\d+), col (\d+)/.exec(sentence);
  if (!found) return null;
  const lines = query.split("\n");
  const before = lines.slice(0, Number(found[1]) - 1).reduce((sum, line) => sum + line.length + 1, 0);
  const line = lines[Number(found[1]) - 1] ?? "";
  // The column counts characters, JavaScript counts UTF-16 units
  return oneLine(query.slice(0, before + [...line].slice(0, Number(found[2]) - 1).join("").length)).length;
}
