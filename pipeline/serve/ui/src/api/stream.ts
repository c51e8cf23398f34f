/** Server-sent events, read with fetch: EventSource can send neither tenant nor token. */
import { ApiError, fetchApi, type Params } from "./client";

/** Calls back with each event until it is aborted or the server ends it. Throws ApiError. */
export async function listen(path: string, params: Params, signal: AbortSignal, heard: (event: string, data: unknown) => void): Promise<void> {
  const answer = await fetchApi(path, params, { signal, headers: { Accept: "text/event-stream" } });
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop()!;
      for (const part of parts) tell(part, heard);
    }
  } catch (error) {
    if (signal.aborted) return;
    throw error instanceof ApiError ? error : new ApiError(0, "The connection to the querier was lost.");
  }
}

function tell(part: string, heard: (event: string, data: unknown) => void): void {
  const lines = part.split("\n");
  const field = (name: string) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
  heard(field("event")[0] ?? "message", JSON.parse(field("data").join("\n")));
}
