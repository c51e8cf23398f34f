/** Rate, errors and durations of what is looked for. Dragging over time zooms, a box asks Compare. */
import { useMemo } from "preact/hooks";
import type { ApiError } from "../api/client";
import { failingMost, heatCells, measureRange, summed, timesOf, totalsBy } from "../api/measure";
import { labelOf } from "../api/types";
import { type Answer, useAnswer } from "../api/useAnswer";
import { clockText, percentText, rateText, threeDigits } from "../format";
import { Ago } from "../parts/Ago";
import { HeatMap, type HeatBox } from "../parts/HeatMap";
import { LineChart } from "../parts/LineChart";
import { type Condition, conditionText, quoted, spanset, withCondition, withoutCondition } from "../query";
import { change, go, urlOf } from "../router";
import { type Range, rangeParams } from "../range";

const POINTS = 75;
const NAME_SHOWN_MAX = 24;
const SERVICE = "resource.service.name";
const FAILED: Condition = { name: "status", op: "=", value: "error" };

interface Props {
  readonly query: string;
  readonly range: Range;
  readonly about: readonly unknown[];
}

export function Panels({ query, range, about }: Props) {
  const totals = useAnswer((signal) => totalsBy(SERVICE, query, range, signal), about);
  const byStatus = useAnswer((signal) => measureRange(query, "rate() by (status)", range, POINTS, signal), about);
  const durations = useAnswer((signal) => measureRange(query, "histogram_over_time(duration)", range, POINTS, signal), about);
  const red = useMemo(() => {
    const series = byStatus.value?.series ?? [];
    const failed = series.filter((one) => labelOf(one.labels, "status") === "error");
    const timesS = timesOf(series);
    return { timesS, all: summed(series, timesS), failed: failed.length ? summed(failed, timesS) : timesS.map(() => 0) };
  }, [byStatus.value]);
  const cells = useMemo(() => heatCells(durations.value?.series ?? []), [durations.value]);
  const lines = useMemo(() => [{ name: "spans", colour: "--accent", values: red.all }], [red]);
  const bars = useMemo(() => [{ name: "errors", colour: "--bad", values: red.failed }], [red]);
  const zoom = (fromS: number, toS: number) => change(rangeParams({ fromS, toS: Math.max(toS, fromS + 1) }));
  const services = (!totals.error && totals.value?.rows) || [];
  const rate = services.reduce((sum, one) => sum + one.rate, 0);
  const failed = services.reduce((sum, one) => sum + one.failed, 0);
  const most = failingMost(services);

  return (
    <div class="panels">
      <section class="panel" aria-label="Rate">
        <h2>
          Rate <span class="dim">{told(totals, () => `${rateText(rate)} on average`)}</span>
        </h2>
        <Problem answer={byStatus} />
        {red.timesS.length ? (
          <LineChart title="Spans a second" timesS={red.timesS} lines={lines} text={rateText} tick={perSecond} zoom={zoom} />
        ) : (
          <NoChart answer={byStatus} />
        )}
      </section>
      <section class="panel" aria-label="Errors">
        <h2>
          Errors{" "}
          <span class={failed > 0 ? "bad-text" : "dim"}>{told(totals, () => `${percentText(failed / (rate || 1))} of the spans`)}</span>
          {most && (
            <a href={errorsUrl(query, range, most.name)} title="The service that fails most often: its errors">
              {percentText(most.failed / most.rate)} of {most.name.slice(0, NAME_SHOWN_MAX)}’s
            </a>
          )}
          <Since atS={beganS(red.timesS, red.failed)} />
          <a
            class="panel-link"
            href={compareUrl(withoutCondition(query, FAILED), range, spanset([FAILED]))}
            title="What do spans with errors have in common?"
          >
            Compare errors
          </a>
        </h2>
        <Problem answer={byStatus} />
        {red.timesS.length ? (
          <LineChart title="Errors a second" timesS={red.timesS} lines={bars} text={rateText} tick={perSecond} zoom={zoom} bars />
        ) : (
          <NoChart answer={byStatus} />
        )}
      </section>
      <section class="panel" aria-label="Durations">
        <h2>
          Durations <span class="dim">drag a box to compare it</span>
          <a class="panel-link" href={compareUrl(query, range, "slowest")} title="What do the slowest 5 % have in common?">
            Compare slowest
          </a>
        </h2>
        <Problem answer={durations} />
        {cells.timesS.length ? <HeatMap cells={cells} chosen={(box) => go(boxUrl(query, range, box))} /> : <NoChart answer={durations} />}
      </section>
    </div>
  );
}

/** When the first errors came; of those that were there from the start of the range nobody can say. */
function Since({ atS }: { atS: number | null }) {
  if (atS === null) return null;
  return (
    <span class="dim" title="When the first of them came, in the time that is looked at">
      since <time dateTime={new Date(atS * 1000).toISOString()}>{clockText(atS * 1000)}</time>, <Ago unixMs={atS * 1000} />
    </span>
  );
}

// A point stands at the end of its interval
function beganS(timesS: readonly number[], failed: readonly (number | null)[]): number | null {
  const first = failed.findIndex((value) => value);
  return first > 0 ? timesS[first - 1]! : null;
}

function perSecond(value: number): string {
  return `${threeDigits(value)}/s`;
}

function told(answer: Answer<unknown>, text: () => string): string {
  return answer.value && !answer.error ? text() : "";
}

function Problem({ answer }: { answer: Answer<unknown> }) {
  const error: ApiError | undefined = answer.error;
  return error && <p class="dim panel-problem">No chart: {error.message.slice(0, 200)}</p>;
}

/** As high as a chart, so that nothing moves when one comes. */
function NoChart({ answer }: { answer: Answer<unknown> }) {
  return <p class="no-chart dim">{answer.error ? "" : answer.value ? "No span in this time" : "Spans are being counted…"}</p>;
}

function errorsUrl(query: string, range: Range, service: string): string {
  const q = [`${SERVICE} = ${quoted(service)}`, conditionText(FAILED)].reduce(withCondition, query);
  return urlOf("/", { q, ...timesOfUrl(range) });
}

function timesOfUrl(range: Range): Record<string, string | null> {
  return range.since ? rangeParams(range.since) : rangeParams(range);
}

export function compareUrl(query: string, range: Range, selection: string): string {
  return urlOf("/compare", { q: query, sel: selection, ...timesOfUrl(range) });
}

function boxUrl(query: string, range: Range, box: HeatBox): string {
  const low = box.lowNs ? `duration > ${box.lowNs}ns && ` : "";
  const url = compareUrl(query, range, `{ ${low}duration <= ${box.highNs}ns }`);
  // The range of now, so that the box stays inside it when the link is opened later
  const fixed = rangeParams(range);
  return urlOf("/compare", { selfrom: `${box.fromS}`, selto: `${box.toS}`, ...fixed }, new URLSearchParams(url.split("?")[1]));
}
