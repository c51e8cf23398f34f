/** The two traces that were picked in the list, to be compared: they stand in the URL. */
import type { FoundTrace } from "../api/types";
import { clockText, durationText } from "../format";
import { useKeys } from "../keys";
import { Service } from "../parts/Service";
import { change, go } from "../router";
import { differenceUrl } from "../trace/DifferencePage";
import { traceIdOf } from "../traceId";

const PICKED_MAX = 2;

/** The picked IDs, the first one first. */
export function picksOf(params: URLSearchParams): readonly string[] {
  return (params.get("pick") ?? "").split("-").flatMap((id) => traceIdOf(id) ?? []).slice(0, PICKED_MAX);
}

/** Picks a trace, or not any more. Of three the one that was picked first goes. */
export function togglePick(picks: readonly string[], id: string): void {
  const left = picks.filter((one) => one !== id);
  setPicks(left.length < picks.length ? left : [...left, id].slice(-PICKED_MAX));
}

function setPicks(ids: readonly string[]): void {
  change({ pick: ids.join("-") }, true);
}

/** What is picked, and what can be done with it. */
export function PickBar({ picks, traces }: { picks: readonly string[]; traces: readonly FoundTrace[] }) {
  const [a, b] = picks;
  const compare = () => a && b && go(differenceUrl(a, b));
  useKeys("Picked traces", a && b ? [{ keys: "c", does: "compare the two picked traces", run: compare }] : []);
  return (
    <section class="picks" aria-label="Picked traces">
      <div role="status">
        <ol>
          {picks.map((id, at) => (
            <li key={id}>
              <b>{"AB"[at]}</b> <Picked id={id} trace={traces.find((one) => one.traceID === id)} />
            </li>
          ))}
          {!b && <li class="dim">Pick a second trace to compare it with.</li>}
        </ol>
      </div>
      <div class="picks-do">
        <button type="button" class="primary" disabled={!b} onClick={compare}>
          Compare
        </button>
        <button type="button" class="quiet" onClick={() => setPicks([])}>
          Pick none
        </button>
      </div>
    </section>
  );
}

function Picked({ id, trace }: { id: string; trace: FoundTrace | undefined }) {
  if (!trace) return <code>{id.slice(0, 16)}</code>;
  return (
    <>
      <Service name={(trace.rootServiceName ?? "").slice(0, 40)} /> {(trace.rootTraceName ?? "").slice(0, 60)}{" "}
      <span class="dim">
        {clockText(Number(trace.startTimeUnixNano ?? 0) / 1e6)}, {trace.durationMs ? durationText(trace.durationMs * 1e6) : "< 1 ms"}
      </span>
    </>
  );
}
