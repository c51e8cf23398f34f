/** The words of completion, from the API: names by scope, values of a name. */
import { ask } from "../api/client";
import type { TagScopes, TagValues } from "../api/types";
import { attributeName, valueLiteral } from "../query";
import { recentQueries } from "./recent";
import { AFTER_SPANSET, JOINTS, matching, operatorsOf, STAGES, type Wanted } from "./wanted";

const SHOWN_MAX = 12;
const VALUES_ASKED = 200;
const KEPT_MS = 30_000;
const SCOPE_ORDER = ["intrinsic", "resource", "span", "event", "link", "instrumentation"];
const HIDDEN = /^(span:(duration|name|kind|status|statusMessage)|traceDuration|rootName|rootServiceName)$/; // have another name
const BEGINNINGS = ["{ status = error }", "{ duration > 500ms }", "{ kind = server }", "{ "];
const DURATIONS = ["10ms", "100ms", "500ms", "1s", "5s"];

interface Kept<T> {
  readonly atMs: number;
  readonly value: Promise<T>;
}
const kept = new Map<string, Kept<string[]>>();

/** Asked once in a while, however often it is wanted. */
function keptFor(key: string, make: () => Promise<string[]>): Promise<string[]> {
  const found = kept.get(key);
  if (found && Date.now() - found.atMs < KEPT_MS) return found.value;
  const value = make();
  if (kept.size > 100) kept.clear();
  kept.set(key, { atMs: Date.now(), value });
  value.catch(() => kept.delete(key));
  return value;
}

/** All names, as they stand in a query. */
export function attributeNames(range: { start: number; end: number }): Promise<string[]> {
  return keptFor(`names ${Math.floor(range.start / 60)}`, async () => {
    const found = await ask<TagScopes>("/api/v2/search/tags", range);
    const scopes = [...found.scopes].sort((a, b) => SCOPE_ORDER.indexOf(a.name) - SCOPE_ORDER.indexOf(b.name));
    return scopes.flatMap((scope) =>
      scope.tags.filter((tag) => scope.name !== "intrinsic" || !HIDDEN.test(tag)).map((tag) => attributeName(scope.name, tag)),
    );
  });
}

/** Values of a name, as they stand in a query. */
export function valuesOf(name: string, among: string, range: { start: number; end: number }): Promise<string[]> {
  if (/uration$/.test(name)) return Promise.resolve(DURATIONS);
  return keptFor(`values ${name} ${among} ${Math.floor(range.start / 60)}`, async () => {
    const path = `/api/v2/search/tag/${encodeURIComponent(name)}/values`;
    const found = await ask<TagValues>(path, { q: among, limit: VALUES_ASKED, ...range });
    return found.tagValues.map((one) => valueLiteral(one.type, one.value));
  });
}

export async function suggestionsFor(wanted: Wanted, range: { start: number; end: number }): Promise<string[]> {
  return matching(await words(wanted, range), wanted.typed, SHOWN_MAX);
}

async function words(wanted: Wanted, range: { start: number; end: number }): Promise<readonly string[]> {
  switch (wanted.kind) {
    case "name":
      return attributeNames(range);
    case "operator":
      return operatorsOf(wanted.name);
    case "value":
      return valuesOf(wanted.name, `${wanted.among}}`, range);
    case "joint":
      return JOINTS;
    case "stage":
      return wanted.name === "|" ? STAGES : wanted.name === "}" ? AFTER_SPANSET : [...new Set([...recentQueries(), ...BEGINNINGS])];
    default:
      return [];
  }
}
