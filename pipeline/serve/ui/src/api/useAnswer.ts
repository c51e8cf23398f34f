/** A question that is asked while a component shows, again when it changes; the newest answer counts. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./client";

export interface Answer<T> {
  /** The newest answer, also while the next one is on its way. */
  readonly value: T | undefined;
  readonly error: ApiError | undefined;
  readonly loading: boolean;
  /** When the value came, in Unix ms; 0 before. */
  readonly atMs: number;
  /** When it was asked for, in Unix ms; 0 before. */
  readonly askedMs: number;
  readonly again: () => void;
}

interface State<T> {
  value: T | undefined;
  error: ApiError | undefined;
  loading: boolean;
  atMs: number;
  askedMs: number;
}

/** ask: null asks nothing. about: what the question depends on; everyMs: asked again so often while the tab is seen. */
export function useAnswer<T>(
  ask: ((signal: AbortSignal) => Promise<T>) | null,
  about: readonly unknown[],
  everyMs = 0,
): Answer<T> {
  const [state, setState] = useState<State<T>>({ value: undefined, error: undefined, loading: ask !== null, atMs: 0, askedMs: 0 });
  const [turn, setTurn] = useState(0);
  const again = useCallback(() => setTurn((before) => before + 1), []);
  const asking = useRef(ask);
  asking.current = ask;
  const waiting = useRef(false);
  useEffect(() => {
    const question = asking.current;
    if (question === null) {
      setState((before) => ({ ...before, loading: false }));
      return;
    }
    const stopped = new AbortController();
    const askedMs = Date.now();
    waiting.current = true;
    setState((before) => ({ ...before, loading: true }));
    question(stopped.signal).then(
      (value) => {
        if (stopped.signal.aborted) return;
        waiting.current = false;
        setState({ value, error: undefined, loading: false, atMs: Date.now(), askedMs });
      },
      (problem: unknown) => {
        if (stopped.signal.aborted) return;
        waiting.current = false;
        const error = problem instanceof ApiError ? problem : new ApiError(0, `The answer was not understood: ${problem}`);
        setState((before) => ({ ...before, error, loading: false }));
      },
    );
    return () => stopped.abort();
  }, [...about, turn, ask === null]);
  useEffect(() => {
    if (!everyMs) return;
    // Not while an answer is on its way: one that takes longer would never come
    const timer = setInterval(() => document.visibilityState === "visible" && !waiting.current && again(), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return { ...state, again };
}
