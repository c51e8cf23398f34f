/** What some spans have in common that the others have not: each attribute's values in a selection and in the rest. */
import { useMemo, useState } from "preact/hooks";
import { ask } from "../api/client";
import { measureOnce } from "../api/measure";
import { type InstantAnswer, labelOf } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import type { ViewProps } from "../App";
import { QueryBox } from "../explore/QueryBox";
import { clockText, countText, durationText, percentText } from "../format";
import { useKeys } from "../keys";
import { MomentField } from "../parts/MomentField";
import { RangePicker } from "../parts/RangePicker";
import { Empty, ErrorBox, Loading, Nothing, PartialNote } from "../parts/States";
import { insideOf, tokens, withCondition } from "../query";
import { type Range, rangeOf, rangeParams } from "../range";
import { change, urlOf } from "../router";
import { type ComparedAttribute, type ComparedValue, ranked } from "./ranked";

const ERRORS = "{ status = error }";
const SLOWEST = "slowest";
const AFTER = "after";
const VALUES = 10;
const SHOWN = 6;
const SHOWN_IF_ALIKE = 3; // of an attribute whose values hardly differ
const FIRST_ATTRIBUTES = 12;

export function ComparePage({ params }: ViewProps) {
  const query = params.get("q") ?? "";
  const chosen = params.get("sel") ?? ERRORS;
  const window = windowOf(params);
  const onlySelection = params.get("only") === "1";
  const all = params.get("all") === "1";
  const showAll = () => change({ all: all ? null : "1" }, true);
  const [turn, setTurn] = useState(0);
  const range = useMemo(() => rangeOf(params), [params.get("since"), params.get("from"), params.get("to"), turn]);
  const moment = momentOf(params, range);
  const found = useAnswer(
    async (signal) => {
      const selection = await selectionOf(query, chosen, chosen === AFTER ? [moment * 1e9, range.toS * 1e9] : window, range, signal);
      const stage = `compare(${selection.text}, ${VALUES}${selection.window ? `, ${selection.window.join(", ")}` : ""})`;
      const answer = await ask<InstantAnswer>(
        "/api/metrics/query",
        { q: `${query || "{}"} | ${stage}`, start: range.fromS, end: range.toS },
        signal,
      );
      return { answer, selection };
    },
    [query, chosen, window?.join(), range, chosen === AFTER && moment],
  );
  const comparison = useMemo(() => found.value && ranked(found.value.answer.series ?? []), [found.value]);
  useKeys("Compare", [
    { keys: "/", does: "write a query", run: () => document.getElementById("query")?.focus() },
    { keys: "x", does: "all attributes, or those that differ most", run: showAll },
    { keys: "r", does: "ask again", run: () => setTurn((before) => before + 1) },
  ]);
  const given = new Set(tokens(found.value?.selection.text ?? "").map((token) => token.text)); // differ by definition
  const attributes = (comparison?.attributes ?? []).filter(
    (one) => !given.has(one.name) && (!onlySelection || one.hasSelection > 0),
  );
  const told = found.value?.selection.told ?? "";

  return (
    <div class="page">
      <h1 class="hidden-label">Compare spans</h1>
      <div class="bar">
        <QueryBox query={query} error={found.error} range={range} placeholder="all spans, or a query: { name = &quot;charge card&quot; }" run={(q) => change({ q })} />
        <div class="bar-end">
          <RangePicker range={range} />
        </div>
      </div>
      <Selection chosen={chosen} isBox={window !== null} />
      {chosen === AFTER && <Moment atS={moment} range={range} />}
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      <PartialNote answer={found.value?.answer} />
      {found.loading && <Loading what="Attributes are being counted" />}
      {comparison && !found.error && (
        <>
          <p role="status">
            <i class="swatch selection" /> <strong>{countText(comparison.selectionSpans)}</strong> {told} against{" "}
            <i class="swatch baseline" /> <strong>{countText(comparison.baselineSpans)}</strong> others.
          </p>
          {comparison.selectionSpans + comparison.baselineSpans === 0 ? (
            <Nothing what="span" query={query} />
          ) : comparison.selectionSpans === 0 ? (
            <Empty title="No span is in the selection">
              <p>Choose another selection or a longer time.</p>
            </Empty>
          ) : (
            <>
              <label class="inline">
                <input type="checkbox" checked={onlySelection} onChange={() => change({ only: onlySelection ? null : "1" }, true)} />{" "}
                hide what only the others have
              </label>
              <div class="compared">
                {attributes.slice(0, all ? undefined : FIRST_ATTRIBUTES).map((one) => (
                  <Attribute key={one.name} attribute={one} query={query} params={params} />
                ))}
              </div>
              {attributes.length > FIRST_ATTRIBUTES && (
                <button type="button" onClick={showAll}>
                  {all ? `Only the ${FIRST_ATTRIBUTES} that differ most` : `${attributes.length - FIRST_ATTRIBUTES} more attributes that differ less`}
                </button>
              )}
            </>
          )}
        </>
      )}
    </div>
  );
}

function Selection({ chosen, isBox }: { chosen: string; isBox: boolean }) {
  const isOwn = isBox || ![ERRORS, SLOWEST, AFTER].includes(chosen);
  const choose = (sel: string) => change({ sel: sel === ERRORS ? null : sel, selfrom: null, selto: null });
  const own = (event: SubmitEvent) => {
    event.preventDefault();
    const given = `${new FormData(event.target as HTMLFormElement).get("own") ?? ""}`.trim();
    if (given) choose(given);
  };
  return (
    <div class="selection-choice" role="group" aria-label="What is compared">
      {([
        [ERRORS, "Errors against the rest"],
        [SLOWEST, "Slowest 5 % against the rest"],
        [AFTER, "After a moment against before"],
      ] as const).map(([sel, name]) => (
        <button key={sel} type="button" aria-pressed={!isOwn && chosen === sel} onClick={() => choose(sel)}>
          {name}
        </button>
      ))}
      <form onSubmit={own} key={chosen}>
        <input
          name="own"
          class="mono"
          aria-label="Selection as a TraceQL filter"
          placeholder="or a filter: { span.http.status_code >= 500 }"
          defaultValue={isOwn ? chosen : ""}
        />
        <button type="submit" aria-pressed={isOwn}>
          Against the rest
        </button>
      </form>
    </div>
  );
}

/** The moment that parts before from after: `at=` in Unix seconds, where it lies in the range, else its middle. */
function momentOf(params: URLSearchParams, range: Range): number {
  const at = Number(params.get("at"));
  return at > range.fromS && at < range.toS ? Math.round(at) : Math.round((range.fromS + range.toS) / 2);
}

/** A moment means a range that stays where it is. */
function Moment({ atS, range }: { atS: number; range: Range }) {
  return (
    <p>
      <label class="inline">
        The moment{" "}
        <MomentField label="The moment" unixS={atS} aboveS={range.fromS} belowS={range.toS} change={(at) => change({ at: `${at}`, ...rangeParams(range) }, true)} />
      </label>{" "}
      <span class="dim">such as when a new version came</span>
    </p>
  );
}

interface Chosen {
  readonly text: string;
  readonly window: readonly [number, number] | null;
  /** "spans ..." in words. */
  readonly told: string;
}

/** The selection as compare() takes it. */
async function selectionOf(query: string, chosen: string, window: readonly [number, number] | null, range: Range, signal: AbortSignal): Promise<Chosen> {
  if (chosen === AFTER && window) {
    return { text: "{ true }", window: [wholeNs(window[0]), wholeNs(window[1])], told: `spans after ${clockText(window[0] / 1e6)}` };
  }
  if (chosen === SLOWEST) {
    const answer = await measureOnce(query, "quantile_over_time(duration, .95)", range, signal);
    const limitNs = Math.round((answer.series?.find((one) => labelOf(one.labels, "p"))?.value ?? 0) * 1e9);
    return { text: `{ duration > ${limitNs}ns }`, window: null, told: `spans longer than ${durationText(limitNs)} (the slowest 5 %)` };
  }
  const inside = insideOf(chosen);
  const text = chosen.trim().startsWith("{") || inside !== null ? chosen : `{ ${chosen} }`;
  const box = window && `, started ${clockText(window[0] / 1e6)} to ${clockText(window[1] / 1e6)}`;
  return { text, window, told: `${chosen === ERRORS ? "spans with errors" : `spans that match ${text}`}${box ?? ""}` };
}

/** The time of a box in the heat map, in Unix ns. */
function windowOf(params: URLSearchParams): readonly [number, number] | null {
  const [from, to] = [Number(params.get("selfrom")), Number(params.get("selto"))];
  return from > 0 && to > from ? [wholeNs(from * 1e9), wholeNs(to * 1e9)] : null;
}

/** Seconds times 1e9 pass the integers that a number holds exactly: only whole microseconds are meant anyway. */
function wholeNs(ns: number): number {
  return Math.round(ns / 1e6) * 1e6;
}

function Attribute({ attribute, query, params }: { attribute: ComparedAttribute; query: string; params: URLSearchParams }) {
  const most = Math.max(...attribute.values.map((one) => Math.max(one.selection, one.baseline)), 0.01);
  const shown = attribute.values.slice(0, attribute.difference < 0.1 ? SHOWN_IF_ALIKE : SHOWN);
  return (
    <section class="panel" aria-label={attribute.name}>
      <h2>
        <code>{cut(attribute.name)}</code>
        <span class="dim">differs by {percentText(attribute.difference)}</span>
      </h2>
      <ul class="bars">
        {shown.map((one) => (
          <Value key={one.value} name={attribute.name} one={one} most={most} query={query} params={params} />
        ))}
      </ul>
      {attribute.values.length > shown.length && <p class="dim">and {attribute.values.length - shown.length} more values</p>}
    </section>
  );
}

function Value(props: { name: string; one: ComparedValue; most: number; query: string; params: URLSearchParams }) {
  const { name, one, most, query, params } = props;
  const narrowed = (op: string) => urlOf("/compare", { q: withCondition(query, `${name} ${op} ${one.literal}`) }, params);
  const explore = urlOf("/", { q: withCondition(query, `${name} = ${one.literal}`), ...times(params) });
  return (
    <li>
      <div class="bars-head">
        <a href={explore} title="Show these traces" class="bars-value">
          {cut(one.value) || "(empty)"}
        </a>
        <span class="bars-do">
          <a href={narrowed("=")} aria-label={`Only ${cut(one.value)}`} title="Only these">
            + only
          </a>
          <a href={narrowed("!=")} aria-label={`Without ${cut(one.value)}`} title="Without these">
            − without
          </a>
        </span>
      </div>
      <Bar kind="selection" share={one.selection} most={most} />
      <Bar kind="baseline" share={one.baseline} most={most} />
    </li>
  );
}

function Bar({ kind, share, most }: { kind: "selection" | "baseline"; share: number; most: number }) {
  return (
    <div class="share">
      <i class={kind} style={{ width: `${(share / most) * 100}%` }} />
      <span class="number">
        <span class="hidden-label">{kind} </span>
        {percentText(share)}
      </span>
    </div>
  );
}

function times(params: URLSearchParams): Record<string, string | null> {
  return Object.fromEntries(["since", "from", "to"].map((name) => [name, params.get(name)]));
}

function cut(text: string): string {
  return text.length > 120 ? `${text.slice(0, 120)}…` : text;
}
