/** What could stand where the caret is: the place decides, the words come from the API. */
import { isIntrinsic, OPERATORS, type Token, tokens } from "../query";

export interface Wanted {
  readonly kind: "name" | "operator" | "value" | "joint" | "stage" | "nothing";
  /** What is written of it, from where. */
  readonly typed: string;
  readonly from: number;
  /** The attribute whose value or operator is wanted. */
  readonly name: string;
  /** What narrows values: the query up to here. */
  readonly among: string;
}

export const STAGES = ["select(", "by(", "count() > ", "avg(duration) > ", "max(duration) > ", "min(duration) > ", "sum(duration) > "];
export const JOINTS = ["&& ", "|| ", "}"];
export const AFTER_SPANSET = ["| ", "&& {", "|| {", ">> {", "> {", "<< {", "~ {"];
const IS_VALUE = /^(nil|true|false|[-\d"`])/;

export function wantedAt(text: string, caret: number): Wanted {
  const before = tokens(text.slice(0, caret));
  const last = before.at(-1);
  const touching = last && last.at + last.text.length === caret;
  const isTyped = touching && (last.kind === "name" || last.kind === "string" || isHalfOperator(last));
  const typed = isTyped ? last : undefined;
  const context = typed ? before.slice(0, -1) : before;
  const [kind, name] = kindAfter(context, typed);
  const from = typed?.at ?? caret;
  return { kind, typed: typed?.text ?? "", from, name, among: text.slice(0, from) };
}

/** Where what is written there ends: a name goes on behind the caret, a string where it is closed. */
export function endOfTyped(text: string, { typed, from }: Wanted, caret: number): number {
  const whole = typed ? tokens(text).find((token) => token.at === from) : undefined;
  if (whole?.kind === "name") return Math.max(caret, from + whole.text.length);
  const rest = whole?.kind === "string" ? /^[^"`{}&|]*["`]/.exec(text.slice(caret)) : null;
  return caret + (rest ? rest[0].length : 0);
}

function isHalfOperator(token: Token): boolean {
  return token.kind === "operator" || token.text === "!";
}

function kindAfter(context: readonly Token[], typed: Token | undefined): [Wanted["kind"], string] {
  const previous = context.at(-1);
  const [braces, brackets] = depths(context);
  if (!previous) return typed ? ["nothing", ""] : ["stage", ""];
  if (braces === 0) {
    if (brackets > 0 && /^[(,]$/.test(previous.text)) return ["name", ""];
    return previous.text === "}" || previous.text === "|" ? ["stage", previous.text] : ["nothing", ""];
  }
  if (previous.kind === "operator") {
    const of = context.at(-2);
    return of?.kind === "name" ? ["value", of.text] : ["nothing", ""];
  }
  if (/^(\{|\(|&&|\|\||!)$/.test(previous.text)) return ["name", ""];
  const isOperand = previous.kind === "string" || previous.kind === "name" || previous.text === ")";
  if (!isOperand) return ["nothing", ""];
  const compared = context.at(-2)?.kind === "operator";
  return compared || previous.text === ")" || IS_VALUE.test(previous.text) ? ["joint", ""] : ["operator", previous.text];
}

function depths(context: readonly Token[]): [number, number] {
  const count = (text: string) => context.filter((token) => token.text === text).length;
  return [count("{") - count("}"), count("(") - count(")")];
}

/** Operators that an attribute may have. */
export function operatorsOf(name: string): readonly string[] {
  if (/^(status|kind|span:status|span:kind)$/.test(name)) return ["=", "!="];
  if (/uration$/.test(name) && isIntrinsic(name)) return [">", ">=", "<", "<="];
  return OPERATORS;
}

/** The items that go on with what is typed: those that begin so first. */
export function matching(items: readonly string[], typed: string, most: number): string[] {
  const low = typed.toLowerCase();
  const bare = low.replace(/^["`]/, "");
  const rank = (item: string) => {
    const text = item.toLowerCase();
    if (text.startsWith(low)) return 0;
    const at = bare ? text.indexOf(bare) : 1;
    return at < 0 ? -1 : at === 1 && /^["`]/.test(text) ? 0 : 1;
  };
  const ranked = items.map((item) => [rank(item), item] as const).filter(([order]) => order >= 0);
  return ranked.sort((a, b) => a[0] - b[0]).map(([, item]) => item).filter((item) => item !== typed).slice(0, most);
}
