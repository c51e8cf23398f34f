/** The queries that were run last in this browser. */
import { remember, remembered } from "../theme";

const KEY = "spanstream.recent";
const KEPT = 10;
const BYTES_MAX = 2000; // longer ones are not remembered

export function recentQueries(): string[] {
  try {
    const read: unknown = JSON.parse(remembered(KEY) || "[]");
    return Array.isArray(read) ? read.filter((one): one is string => typeof one === "string") : [];
  } catch {
    return [];
  }
}

export function rememberQuery(query: string): void {
  if (!query || query.length > BYTES_MAX) return;
  const others = recentQueries().filter((one) => one !== query);
  remember(KEY, JSON.stringify([query, ...others].slice(0, KEPT)));
}
