/** A search that shows what it has found while it goes on. */
import { ApiError, type Params } from "./client";
import { listen } from "./stream";
import type { FoundTrace, SearchAnswer } from "./types";

/** The answer; `found` is told the first of the traces found so far, each time in the place of those before. */
export async function search(params: Params, signal: AbortSignal, found: (traces: readonly FoundTrace[]) => void): Promise<SearchAnswer> {
  let answer: SearchAnswer | undefined;
  await listen("/api/search", params, signal, (event, data) => {
    if (event === "failed") throw new ApiError(503, (data as { message: string }).message);
    if (event === "found") found((data as SearchAnswer).traces);
    if (event === "answer") answer = data as SearchAnswer;
  });
  if (!answer) throw signal.aborted ? new DOMException("given up", "AbortError") : new ApiError(0, "The connection to the querier was lost.");
  return answer;
}
