/** The newest spans that arrive, and what is known of the stream. Memory is bounded: the oldest rows go. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api/client";
import { listen } from "../api/stream";
import type { Partial } from "../api/types";

export interface TailSpan {
  readonly traceID: string;
  readonly spanID: string;
  readonly name: string;
  readonly serviceName: string;
  readonly kind: string;
  readonly status: string;
  readonly startTimeUnixNano: string;
  readonly durationNanos: string;
}

interface Turn extends Partial {
  readonly nowUnixNano: string;
  readonly spans: readonly TailSpan[];
  readonly arrived: number;
  readonly matched: number;
  readonly skipped: number;
}

export interface Tail {
  readonly state: "connecting" | "connected" | "lost";
  readonly error: ApiError | undefined;
  readonly spans: readonly TailSpan[];
  /** Came while it was paused and wait to be shown. */
  readonly waiting: number;
  readonly skipped: number;
  readonly matched: number;
  readonly arrived: number;
  /** By the querier's clock, in Unix ms. */
  readonly nowMs: number;
  readonly newestMs: number;
  readonly perS: number;
  readonly partial: Partial | undefined;
}

const ROWS_MAX = 300;
const WAIT_MS = [1000, 2000, 5000, 10_000];
const RATE_TURNS = 10;
const FIRST_TURN_MS = 80_000; // querier.live_tail_every_s is at most 60 s
const SILENT_MS = 15_000; // or four of the longest turns so far
const NOTHING: Tail = {
  state: "connecting", error: undefined, spans: [], waiting: 0, skipped: 0, matched: 0, arrived: 0, nowMs: 0, newestMs: 0, perS: 0, partial: undefined,
};

export function useTail(query: string, paused: boolean): Tail {
  const [tail, setTail] = useState(NOTHING);
  const isPaused = useRef(paused);
  const waiting = useRef<readonly TailSpan[]>([]);
  isPaused.current = paused;

  useEffect(() => {
    if (paused) return;
    const held = waiting.current;
    waiting.current = [];
    if (held.length) setTail((before) => ({ ...before, spans: newest(held, before.spans), waiting: 0 }));
  }, [paused]);

  useEffect(() => {
    const stopped = new AbortController();
    const recent: { atMs: number; matched: number }[] = [];
    waiting.current = [];
    setTail(NOTHING);
    const heard = (event: string, data: unknown) => {
      if (event === "failed") throw new ApiError(503, (data as { message: string }).message);
      const turn = data as Turn;
      const nowMs = Number(turn.nowUnixNano) / 1e6;
      recent.push({ atMs: nowMs, matched: turn.matched });
      if (recent.length > RATE_TURNS) recent.shift();
      const seconds = (nowMs - recent[0]!.atMs) / 1000;
      const perS = seconds ? recent.slice(1).reduce((sum, one) => sum + one.matched, 0) / seconds : 0;
      if (isPaused.current) waiting.current = newest(turn.spans, waiting.current);
      const ended = turn.spans.map((span) => (Number(span.startTimeUnixNano) + Number(span.durationNanos)) / 1e6);
      setTail((before) => ({
        state: "connected",
        error: undefined,
        spans: isPaused.current ? before.spans : newest(turn.spans, before.spans),
        waiting: isPaused.current ? before.waiting + turn.spans.length : 0,
        skipped: before.skipped + turn.skipped,
        matched: before.matched + turn.matched,
        arrived: before.arrived + turn.arrived,
        nowMs,
        newestMs: Math.max(before.newestMs, ...ended),
        perS,
        partial: turn.status ? { status: turn.status, ...(turn.message && { message: turn.message }) } : undefined,
      }));
    };
    void keepListening(query, stopped.signal, heard, (error) => setTail((before) => ({ ...before, state: "lost", error })));
    return () => stopped.abort();
  }, [query]);
  return tail;
}

/** Again and again, a little later each time; not after an answer that will not change. */
async function keepListening(query: string, signal: AbortSignal, heard: (event: string, data: unknown) => void, lost: (error: ApiError) => void): Promise<void> {
  for (let tries = 0; !signal.aborted; tries++) {
    let error = new ApiError(0, "The querier ended the stream.");
    try {
      await listenWhileTold(query, signal, (event, data) => {
        heard(event, data);
        tries = 0;
      });
    } catch (problem) {
      if (signal.aborted) return;
      error = problem instanceof ApiError ? problem : new ApiError(0, `${problem}`);
    }
    if (signal.aborted) return;
    lost(error);
    if (isFinal(error)) return;
    await new Promise((done) => setTimeout(done, WAIT_MS[Math.min(tries, WAIT_MS.length - 1)]));
  }
}

/** Would the same answer come again? */
export function isFinal(error: ApiError | undefined): boolean {
  return error !== undefined && error.status >= 400 && error.status < 500;
}

/** The stream, ended where it says nothing for too long: a querier tells each turn, also one where nothing came. */
async function listenWhileTold(query: string, signal: AbortSignal, heard: (event: string, data: unknown) => void): Promise<void> {
  const silent = new AbortController();
  let [heardMs, longestMs] = [performance.now(), 0];
  let timer = setTimeout(() => silent.abort(), FIRST_TURN_MS);
  const wait = () => {
    longestMs = Math.max(longestMs, performance.now() - heardMs);
    heardMs = performance.now();
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(), Math.max(SILENT_MS, 4 * longestMs));
  };
  try {
    await listen("/api/tail", { q: query }, AbortSignal.any([signal, silent.signal]), (event, data) => {
      wait();
      heard(event, data);
    });
  } finally {
    clearTimeout(timer);
  }
}

function newest(added: readonly TailSpan[], before: readonly TailSpan[]): readonly TailSpan[] {
  return [...added, ...before].slice(0, ROWS_MAX);
}
