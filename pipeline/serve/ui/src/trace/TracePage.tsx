/** One trace. */
import { ask } from "../api/client";
import { type TraceAnswer, labelOf } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { durationText } from "../format";
import { Service } from "../parts/Service";
import { Empty, ErrorBox, Loading, PartialNote } from "../parts/States";

export function TracePage(props: { traceId: string; params: URLSearchParams }) {
  const found = useAnswer((signal) => ask<TraceAnswer>(`/api/v2/traces/${props.traceId}`, {}, signal), [props.traceId]);
  const spans = (found.value?.trace.resourceSpans ?? []).flatMap((batch) =>
    (batch.scopeSpans ?? []).flatMap((scope) =>
      (scope.spans ?? []).map((span) => ({ span, service: labelOf(batch.resource?.attributes, "service.name") ?? "" })),
    ),
  );
  return (
    <div class="page">
      <h1>
        Trace <code>{props.traceId}</code>
      </h1>
      <p>
        <a href={`/plain/trace/${props.traceId}`}>As a waterfall with all attributes, without script</a>
      </p>
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      <PartialNote answer={found.value} />
      {found.loading && !found.value && <Loading what="The trace is being looked for" />}
      {found.value && !spans.length && <Empty title="No span of this trace is known" />}
      {spans.length > 0 && (
        <table>
          <thead>
            <tr>
              <th>Service</th>
              <th>Name</th>
              <th class="number">Duration</th>
            </tr>
          </thead>
          <tbody>
            {spans.map(({ span, service }) => (
              <tr key={span.spanId}>
                <td>
                  <Service name={service} />
                </td>
                <td>{span.name}</td>
                <td class="number">{durationText(Number(span.endTimeUnixNano ?? 0) - Number(span.startTimeUnixNano ?? 0))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </div>
  );
}
