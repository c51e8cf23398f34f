/** Is everything all right? What is wrong in words, first; then processes, partitions, what is stored, what was dropped. */
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api/client";
import { useAnswer } from "../api/useAnswer";
import type { ViewProps } from "../App";
import { agoText, bytesText, clockText, countText, durationText } from "../format";
import { useKeys } from "../keys";
import { Ago } from "../parts/Ago";
import { ErrorBox, Loading, withCode } from "../parts/States";
import { type Canary, cancelQuery, type Day, type Drops, type PartitionRow, problemsOf, type SystemState, systemState, type Worker } from "./state";

const EVERY_MS = 5000;
const LATE_MS = 2 * EVERY_MS;

export function SystemPage(_props: ViewProps) {
  const [turn, setTurn] = useState(0);
  const found = useAnswer(systemState, [turn], EVERY_MS);
  useKeys("System", [{ keys: "r", does: "ask again", run: () => setTurn((before) => before + 1) }]);
  const state = found.value;
  const isLate = useLate(found.loading);
  return (
    <div class="page">
      <h1>System</h1>
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      {!state && found.loading && <Loading what="The parts are being asked" />}
      {state && isLate && <Late atMs={found.atMs} />}
      {state && <Problems state={state} isLate={isLate || found.error !== undefined} />}
      {state && (
        <p class="dim">
          As of {clockText(found.atMs)}, asked again every {EVERY_MS / 1000} s.
        </p>
      )}
      {state && (
        <div class="cards">
          <Processes state={state} />
          <Canaries canaries={state.canaries} />
          <Queries state={state} again={() => setTurn((before) => before + 1)} />
          <Stored days={state.days} />
          <DropsCard drops={state.drops} />
          <Partitions rows={state.partitions} />
        </div>
      )}
    </div>
  );
}

/** Has an answer been on its way for too long? */
function useLate(isAsking: boolean): boolean {
  const [isLate, setLate] = useState(false);
  useEffect(() => {
    setLate(false);
    if (!isAsking) return;
    const timer = setTimeout(() => setLate(true), LATE_MS);
    return () => clearTimeout(timer);
  }, [isAsking]);
  return isLate;
}

function Late({ atMs }: { atMs: number }) {
  return (
    <div class="notice warn" role="status">
      <p>
        <strong>A part takes long to answer.</strong> What stands here is of {clockText(atMs)}, <Ago unixMs={atMs} />.{" "}
        {withCode("`spanstream doctor` tries every part.")}
      </p>
    </div>
  );
}

/** isLate: whether all is still right is not known. */
function Problems({ state, isLate }: { state: SystemState; isLate: boolean }) {
  const problems = problemsOf(state);
  if (!problems.length) {
    return isLate ? null : (
      <div class="notice good" role="status">
        <p>
          <strong>Everything is all right.</strong> {summary(state)}
        </p>
      </div>
    );
  }
  return (
    <div role="status">
      {problems.map((one) => (
        <div key={one.sentence} class={`notice ${one.bad ? "bad" : "warn"}`}>
          <p>
            <strong>{one.sentence}</strong> {withCode(one.advice)}
          </p>
        </div>
      ))}
    </div>
  );
}

function summary({ partitions }: SystemState): string {
  if (!partitions) return "";
  const workers = new Set(partitions.map((row) => row.owner)).size;
  return `${partitions.length} partitions, ${workers} ${workers === 1 ? "worker" : "workers"}, none behind.`;
}

function Processes({ state }: { state: SystemState }) {
  const partitions = state.partitions ?? [];
  const receivers = state.sources.filter((source) => source.kind === "receiver");
  return (
    <section class="panel" aria-label="Processes">
      <h2>Processes</h2>
      <ul class="processes">
        {receivers.map((one, at) => (
          <Process key={one.url || at} kind="receiver" url={one.url} works={one.reached} told={one.reached ? "answers" : "does not answer"} />
        ))}
        {(state.workers ?? []).map((one) => (
          <Process key={one.url} kind="worker" url={one.url} works={one.reached && !one.lacks} told={workerText(one, partitions)} />
        ))}
        <Process kind="querier" url={location.origin} works={!state.missing} told={state.missing || "answers in full"} />
      </ul>
    </section>
  );
}

function workerText({ url, reached, lacks }: Worker, partitions: readonly PartitionRow[]): string {
  if (!reached) return "does not answer";
  return lacks ? "is not ready" : owns(partitions, url);
}

function owns(rows: readonly PartitionRow[], url: string): string {
  const mine = rows.filter((row) => row.owner === url);
  return `${mine.length} partitions, ${countText(mine.reduce((sum, row) => sum + (row.told?.open_spans ?? 0), 0))} spans not yet in a chunk`;
}

function Process(props: { kind: string; url: string; works: boolean; told: string }) {
  return (
    <li>
      <span class={`state ${props.works ? "good" : "bad"}`}>
        <i />
        {props.kind}
      </span>{" "}
      <code>{props.url}</code> <span class="dim">{props.told}</span>
    </li>
  );
}

function Queries({ state, again }: { state: SystemState; again: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  const cancel = (id: string) =>
    cancelQuery(id).then(
      () => {
        setError(null);
        again();
      },
      (problem: unknown) => setError(problem instanceof ApiError ? problem : new ApiError(0, `${problem}`)),
    );
  return (
    <section class="panel whole" aria-label="Queries">
      <h2>
        Queries under way <span class="dim">in this querier{state.mayCancel ? "" : "; who may see all tenants may cancel"}</span>
      </h2>
      {error && <ErrorBox error={error} again={again} />}
      {state.queries.length === 0 && <p class="dim">None at the moment.</p>}
      {state.queries.length > 0 && (
        <div class="wide" tabIndex={0} role="region" aria-label="Table of queries">
          <table>
            <thead>
              <tr>
                <th>Kind</th>
                <th>Asks</th>
                <th>Tenant</th>
                <th>State</th>
                <th class="number">Since</th>
                {state.mayCancel && <th>Do</th>}
              </tr>
            </thead>
            <tbody>
              {state.queries.map((one) => (
                <tr key={one.id}>
                  <td>{one.kind}</td>
                  <td class="event-text">{one.text.slice(0, 300) || "–"}</td>
                  <td>{one.tenants.join(", ").slice(0, 100)}</td>
                  <td>{one.state}</td>
                  <td class="number">{durationText(one.ageMs * 1e6)}</td>
                  {state.mayCancel && (
                    <td>
                      <button type="button" disabled={one.state === "cancelled"} aria-label={`Cancel the ${one.kind} query ${one.id}`} onClick={() => cancel(one.id)}>
                        Cancel
                      </button>
                    </td>
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Canaries({ canaries }: { canaries: readonly Canary[] }) {
  return (
    <section class="panel" aria-label="Canary">
      <h2>
        Canary <span class="dim">writes traces that it knows, and looks for them</span>
      </h2>
      {canaries.length === 0 && (
        <p class="dim">
          None is known. <code>spanstream canary --metrics-port 6070</code> runs one; <code>querier.canary_urls</code> names it here.
        </p>
      )}
      <ul class="processes">
        {canaries.map((one) => (
          <Process key={one.url} kind={canaryState(one)} url={one.url} works={one.reached && !isWrong(one)} told={canaryTold(one)} />
        ))}
      </ul>
    </section>
  );
}

function isWrong(one: Canary): boolean {
  return (one.lastWrongUnixMs ?? 0) > (one.lastRightUnixMs ?? 0);
}

function canaryState(one: Canary): string {
  return !one.reached ? "silent" : isWrong(one) ? "misses" : one.lastRightUnixMs ? "finds all" : "begins";
}

function canaryTold(one: Canary): string {
  if (!one.reached) return "does not answer";
  const { ok = 0, ...wrong } = one.checks ?? {};
  const parts = [`${countText(ok)} looks right`];
  for (const [result, count] of Object.entries(wrong)) parts.push(`${countText(count)} ${result}`);
  for (const [stage, count] of Object.entries(one.missing ?? {})) parts.push(`${countText(count)} lost at ${stage}`);
  if (one.lastWrongUnixMs) parts.push(`the last wrong ${agoText(one.lastWrongUnixMs)}`);
  if (one.freshMs != null) parts.push(`found after ${durationText(one.freshMs * 1e6)} on average`);
  return parts.join(", ");
}

function Stored({ days }: { days: readonly Day[] }) {
  const most = Math.max(1, ...days.map((day) => day.bytes));
  return (
    <section class="panel" aria-label="Stored by day">
      <h2>
        Stored by day <span class="dim">the last 14 days, UTC</span>
      </h2>
      {days.length === 0 && <p class="dim">No chunk yet: spans are found all the same, and stored within worker.seal_age_s.</p>}
      {days.length > 0 && (
        <table class="days">
          <thead>
            <tr>
              <th>Day</th>
              <th class="number">Chunks</th>
              <th class="number">Spans</th>
              <th class="number">Bytes</th>
              <th class="number">A span</th>
            </tr>
          </thead>
          <tbody>
            {days.map((day) => (
              <tr key={day.day}>
                <td class="took">
                  {day.day}
                  <i class="took-bar" style={{ width: `${(day.bytes / most) * 100}%` }} />
                </td>
                <td class="number">{countText(day.chunks)}</td>
                <td class="number">{countText(day.spans)}</td>
                <td class="number">{bytesText(day.bytes)}</td>
                <td class="number">{bytesText(Math.round(day.bytes / Math.max(1, day.spans)))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

const DROP_NAMES: Readonly<Record<string, string>> = {
  refused_requests: "requests refused",
  rejected_spans: "spans rejected",
  marked_spans: "spans cut or repaired, and kept",
  duplicate_spans: "copies dropped",
  dead_records: "dead letters",
};

function DropsCard({ drops }: { drops: Drops }) {
  const rows = Object.entries(drops).flatMap(([tenant, kinds]) =>
    Object.entries(kinds).flatMap(([kind, reasons]) => Object.entries(reasons).map(([reason, count]) => ({ tenant, kind, reason, count }))),
  );
  rows.sort((a, b) => b.count - a.count);
  return (
    <section class="panel" aria-label="Drops and dead letters">
      <h2>
        Drops and dead letters <span class="dim">since each process started</span>
      </h2>
      {rows.length === 0 && <p class="dim">None: all that came was kept as it was sent.</p>}
      {rows.length > 0 && (
        <table>
          <thead>
            <tr>
              <th>What</th>
              <th>Why</th>
              <th>Tenant</th>
              <th class="number">How many</th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, 50).map((row) => (
              <tr key={row.tenant + row.kind + row.reason} class={row.kind === "dead_records" ? "bad-text" : ""}>
                <td>{DROP_NAMES[row.kind] ?? row.kind}</td>
                <td>{row.reason}</td>
                <td>{row.tenant || "(unknown)"}</td>
                <td class="number">{countText(row.count)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Partitions({ rows }: { rows: readonly PartitionRow[] | null }) {
  return (
    <section class="panel whole" aria-label="Partitions">
      <h2>
        Partitions <span class="dim">how far Kafka's records are taken by a worker, and stored in chunks</span>
      </h2>
      {!rows && <p class="dim">Tenants share them: they are told to a token with the scope admin for all tenants.</p>}
      {rows && <PartitionTable rows={rows} />}
    </section>
  );
}

function PartitionTable({ rows }: { rows: readonly PartitionRow[] }) {
  return (
    <div class="wide" tabIndex={0} role="region" aria-label="Table of partitions">
      <table>
        <thead>
          <tr>
            <th class="number">Number</th>
            <th>Worker</th>
            <th class="number">End</th>
            <th class="number">Behind</th>
            <th class="number">Not yet stored</th>
            <th class="number">Live segments</th>
            <th class="number">Live spans</th>
            <th class="number">Memory</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.partition}>
              <td class="number">{row.partition}</td>
              <td>{row.owner ? <code>{row.owner}</code> : <span class="badge bad">no worker</span>}</td>
              <td class="number">{countText(row.end)}</td>
              <td class={row.told?.lag_records ? "number bad-text" : "number"}>{lagText(row)}</td>
              <td class="number">{countText(row.waiting)} records</td>
              <td class="number">{row.told ? countText(row.told.open_segments) : "–"}</td>
              <td class="number">{row.told ? countText(row.told.open_spans) : "–"}</td>
              <td class="number">{row.told ? bytesText(row.told.held_bytes) : "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function lagText({ told }: PartitionRow): string {
  if (!told || told.lag_records === null) return "–";
  return told.lag_records ? `${countText(told.lag_records)} records, ${durationText(told.lag_s * 1e9)}` : "0";
}
