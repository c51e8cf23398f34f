/** How the deployment stands, from the querier's routes, and what of it is wrong, in sentences. */
import { ApiError, ask, fetchApi } from "../api/client";
import { agoText, countText, durationText } from "../format";

export interface PartitionRow {
  readonly partition: number;
  readonly owner: string;
  readonly stored: number;
  readonly end: number;
  readonly waiting: number;
  /** What its worker tells of it; null where it does not answer. */
  readonly told: Told | null;
}

export interface Worker {
  readonly url: string;
  readonly reached: boolean;
  /** Why it is not ready; empty where it is. */
  readonly lacks: string;
}

interface Told {
  readonly next: number;
  readonly lag_records: number | null;
  readonly lag_s: number;
  readonly open_spans: number;
  /** Age of the oldest record that is in no chunk. */
  readonly unsealed_s: number;
  readonly open_segments: number;
  readonly held_bytes: number;
}

export interface Day {
  readonly day: string;
  readonly chunks: number;
  readonly spans: number;
  readonly bytes: number;
}

export interface Source {
  readonly kind: string;
  /** Empty for who may not see what is of all tenants together. */
  readonly url: string;
  readonly reached: boolean;
}

/** Tenant -> kind -> reason -> how many. */
export type Drops = Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, number>>>>>>;

export interface RunningQuery {
  readonly id: string;
  readonly tenants: readonly string[];
  readonly kind: string;
  readonly text: string;
  readonly state: "waiting" | "running" | "cancelled";
  readonly ageMs: number;
}

/** What a canary says of itself since its start; all but the first two are absent where it does not answer. */
export interface Canary {
  readonly url: string;
  readonly reached: boolean;
  readonly checks?: Readonly<Record<string, number>>;
  readonly missing?: Readonly<Record<string, number>>;
  readonly lastRightUnixMs?: number;
  readonly lastWrongUnixMs?: number;
  readonly freshMs?: number | null;
}

export interface SystemState {
  readonly missing: string;
  /** Null for who may not see what is of all tenants together. */
  readonly partitions: readonly PartitionRow[] | null;
  readonly workers: readonly Worker[] | null;
  /** Names of chunks. */
  readonly damaged: readonly string[] | null;
  readonly days: readonly Day[];
  readonly drops: Drops;
  readonly sources: readonly Source[];
  readonly queries: readonly RunningQuery[];
  readonly mayCancel: boolean;
  readonly canaries: readonly Canary[];
  /** Parts that could not be asked, with why. */
  readonly failed: readonly Problem[];
}

/** All of it; what cannot be asked is told in `failed` and leaves the rest standing. */
export async function systemState(signal: AbortSignal): Promise<SystemState> {
  const failed: Problem[] = [];
  const part = async <T,>(what: string, path: string, otherwise: T): Promise<T> => {
    try {
      return await ask<T>(path, {}, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 0 || error.status === 401) throw error;
      const isForbidden = error.status === 403; // nothing is wrong then: it is for others to see
      failed.push({
        bad: !isForbidden,
        sentence: `${what}: ${error.message}`,
        advice: isForbidden ? "Access takes another token." : "`spanstream doctor` tries every part.",
      });
      return otherwise;
    }
  };
  const nothing = { missing: "", partitions: [] as PartitionRow[] | null, workers: [] as Worker[] | null, damaged: [] as string[] | null, days: [] as Day[] };
  const [system, drops, running, canary] = await Promise.all([
    part("Partitions cannot be listed", "/api/status/system", nothing),
    part("Drops cannot be counted", "/api/status/drops", { tenants: {} as Drops, sources: [] as Source[] }),
    part("Queries cannot be listed", "/api/status/queries", { queries: [] as RunningQuery[], mayCancel: false }),
    part("Canaries cannot be asked", "/api/status/canary", { canaries: [] as Canary[] }),
  ]);
  return {
    ...system,
    drops: drops.tenants,
    sources: drops.sources,
    queries: running.queries,
    mayCancel: running.mayCancel,
    canaries: canary.canaries,
    failed,
  };
}

/** End a query. That it has ended already is as good. */
export async function cancelQuery(id: string): Promise<void> {
  try {
    await fetchApi(`/api/status/queries/${id}`, {}, { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
  }
}

const LATE_S = 10;
const UNSTORED_S = 1800; // twice worker.seal_age_s, as the alert rule has it
const RECENT_MS = 3600e3; // what a canary missed longer ago is told in its card alone
const SILENT_MS = 10 * 60e3;
const LONG_MS = 30_000;
const PARTITIONS_NAMED = 6;

export interface Problem {
  readonly bad: boolean;
  readonly sentence: string;
  readonly advice: string;
}

/** What is wrong, the worst first. */
export function problemsOf(state: SystemState): Problem[] {
  const found: Problem[] = [...state.failed];
  if (state.missing) {
    found.push({ bad: true, sentence: `The querier does not answer in full: ${state.missing}.`, advice: "Answers say so until it does." });
  }
  const partitions = state.partitions ?? [];
  const orphans = partitions.filter((row) => !row.owner);
  if (orphans.length) {
    found.push({
      bad: true,
      sentence: `${named(orphans)} no worker: spans wait in Kafka and are read from there.`,
      advice: "Start a worker: `spanstream worker`. After one died, its partitions go to others within kafka.session_timeout_s.",
    });
  }
  for (const one of state.workers ?? []) {
    if (!one.reached) {
      found.push({
        bad: true,
        sentence: `The worker ${one.url} does not answer.`,
        advice: "Its partitions are read from Kafka meanwhile, and go to others when Kafka has not heard of it for kafka.session_timeout_s. If that lasts: does its process run, does its log go on?",
      });
    } else if (one.lacks) {
      found.push({ bad: true, sentence: `The worker ${one.url} is not ready: ${one.lacks}.`, advice: "What it does not hold is read from Kafka meanwhile." });
    }
  }
  for (const one of state.sources.filter((source) => !source.reached && source.kind === "receiver")) {
    const who = one.url ? `The receiver ${one.url}` : "A receiver";
    found.push({ bad: true, sentence: `${who} does not answer.`, advice: "Is it running there? querier.receiver_urls names the receivers." });
  }
  const damaged = state.damaged ?? [];
  if (damaged.length) {
    found.push({
      bad: true,
      sentence: `${countText(damaged.length)} ${damaged.length === 1 ? "chunk is" : "chunks are"} damaged or gone, such as ${damaged[0]!}.`,
      advice: "Answers that need them say so. Restore the objects; `spanstream catalog verify` names all of them.",
    });
  }
  const late = partitions.filter((row) => (row.told?.lag_s ?? 0) > LATE_S);
  if (late.length) {
    const worst = Math.max(...late.map((row) => row.told!.lag_s));
    const records = late.reduce((sum, row) => sum + (row.told!.lag_records ?? 0), 0);
    found.push({
      bad: true,
      sentence: `${named(late)} not been taken up to the end: ${countText(records)} records, the oldest ${durationText(worst * 1e9)} old.`,
      advice: "Spans are found all the same, more slowly. Add a worker if it stays so.",
    });
  }
  const unstored = partitions.filter((row) => (row.told?.unsealed_s ?? 0) > UNSTORED_S);
  if (unstored.length) {
    const oldest = Math.max(...unstored.map((row) => row.told!.unsealed_s));
    found.push({
      bad: true,
      sentence: `${named(unstored)} not been stored for ${durationText(oldest * 1e9)}.`,
      advice: "Spans are found all the same, while Kafka keeps them. Look at the object store and at the workers' logs: `spanstream doctor`.",
    });
  }
  return [...found, ...canaryProblems(state.canaries, Date.now()), ...queryProblems(state), ...dropProblems(state.drops)];
}

export function canaryProblems(canaries: readonly Canary[], nowMs: number): Problem[] {
  return canaries.flatMap((one): Problem[] => {
    if (!one.reached) {
      return [{ bad: false, sentence: `The canary ${one.url} does not answer.`, advice: "Is it running? querier.canary_urls names the canaries." }];
    }
    const [right = 0, wrong = 0] = [one.lastRightUnixMs, one.lastWrongUnixMs];
    if (wrong && nowMs - wrong < RECENT_MS) {
      const places = Object.entries(one.missing ?? {}).sort((a, b) => b[1] - a[1]);
      const count = places.reduce((sum, [, times]) => sum + times, 0);
      const known = places.length ? `, most often at: ${places[0]![0]}` : "";
      return [
        {
          bad: wrong > right,
          sentence: `The canary found ${countText(count)} ${count === 1 ? "look" : "looks"} at its traces not right, the last ${agoText(wrong, nowMs)}${known}.`,
          advice: "Its own lines name each trace and what was missing.",
        },
      ];
    }
    const last = Math.max(right, wrong);
    if (last && nowMs - last > SILENT_MS) {
      return [{ bad: false, sentence: `The canary ${one.url} looked at nothing since ${agoText(last, nowMs)}.`, advice: "It writes a trace every --every." }];
    }
    return [];
  });
}

function queryProblems({ queries }: SystemState): Problem[] {
  const waiting = queries.filter((one) => one.state === "waiting");
  const long = waiting.filter((one) => one.ageMs > LONG_MS);
  if (!long.length) return [];
  const sentence = `${countText(waiting.length)} ${waiting.length === 1 ? "query waits for its" : "queries wait for their"} turn, the oldest since ${durationText(Math.max(...long.map((one) => one.ageMs)) * 1e6)}.`;
  return [{ bad: true, sentence, advice: "Those that run longest stand below. querier.queries_max says how many run at a time." }];
}

const KINDS: Readonly<Record<string, readonly [string, string]>> = {
  dead_records: ["records could not be read and were set aside", "`spanstream dead list` shows them, `spanstream dead replay` sends them again."],
  refused_requests: ["requests were refused", "Senders were told why, and retry where that helps."],
  rejected_spans: ["spans were rejected", "Senders were told why, by partial success."],
};

function dropProblems(drops: Drops): Problem[] {
  return Object.entries(KINDS).flatMap(([kind, [what, advice]]) => {
    const reasons = new Map<string, number>();
    for (const kinds of Object.values(drops)) {
      for (const [reason, count] of Object.entries(kinds[kind] ?? {})) reasons.set(reason, (reasons.get(reason) ?? 0) + count);
    }
    const total = [...reasons.values()].reduce((sum, count) => sum + count, 0);
    if (!total) return [];
    const [reason] = [...reasons].sort((a, b) => b[1] - a[1])[0]!;
    return [{ bad: kind === "dead_records", sentence: `${countText(total)} ${what}, most often: ${reason}.`, advice }];
  });
}

function named(rows: readonly PartitionRow[]): string {
  const numbers = rows.slice(0, PARTITIONS_NAMED).map((row) => row.partition);
  const more = rows.length > PARTITIONS_NAMED ? ` and ${rows.length - PARTITIONS_NAMED} more` : "";
  return rows.length === 1 ? `Partition ${numbers[0]} has` : `Partitions ${numbers.join(", ")}${more} have`;
}
