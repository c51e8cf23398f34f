/** The newest traces. */
import { ask } from "../api/client";
import type { SearchAnswer } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import type { ViewProps } from "../App";
import { Service } from "../parts/Service";
import { Empty, ErrorBox, Loading, PartialNote, SendFirstSpan } from "../parts/States";
import { apiRange, rangeOf } from "../range";

export function ExplorePage({ params }: ViewProps) {
  const query = params.get("q") ?? "";
  const found = useAnswer(
    (signal) => ask<SearchAnswer>("/api/search", { q: query || "{}", limit: 50, ...apiRange(rangeOf(params)) }, signal),
    [params.toString()],
  );
  return (
    <div class="page">
      <h1>Newest traces</h1>
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      <PartialNote answer={found.value} />
      {found.loading && !found.value && <Loading what="Traces are being looked for" />}
      {found.value?.traces.length === 0 && (
        <Empty title="No trace in this time">
          <SendFirstSpan />
        </Empty>
      )}
      <ul>
        {found.value?.traces.map((trace) => (
          <li key={trace.traceID}>
            <a href={`/trace/${trace.traceID}`}>
              <Service name={trace.rootServiceName ?? ""} /> {trace.rootTraceName}
            </a>
          </li>
        ))}
      </ul>
    </div>
  );
}
