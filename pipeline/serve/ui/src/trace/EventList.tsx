/** All events of a trace by time, exceptions marked; each leads to its span. */
import { ask } from "../api/client";
import type { Partial } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { countText, durationText } from "../format";
import { Service } from "../parts/Service";
import { ErrorBox, Loading, PartialNote } from "../parts/States";
import { change, rowsOf } from "../router";
import type { Tree } from "./model";

const AT_ONCE = 300;

/** The answer of /api/trace-view/{id}/events: columns by time; left: so many more are not told. */
export interface EventColumns extends Partial {
  readonly version: string;
  readonly row: readonly number[];
  readonly at: readonly number[];
  readonly name: readonly string[];
  readonly text: readonly string[];
  readonly left: number;
}

interface Props {
  readonly tree: Tree;
  readonly matches: ReadonlySet<number> | null;
  readonly only: boolean;
  readonly selected: number;
  readonly select: (row: number) => void;
  readonly params: URLSearchParams;
  /** The trace has changed since it was drawn. */
  readonly changed: () => void;
}

export function EventList({ tree, matches, only, selected, select, params, changed }: Props) {
  const { columns } = tree;
  const path = `/api/trace-view/${columns.traceId}/events`;
  const most = rowsOf(params, AT_ONCE);
  const found = useAnswer(async (signal) => {
    const events = await ask<EventColumns>(path, {}, signal);
    if (events.version !== columns.version) changed();
    return events;
  }, [path, columns.version]);
  const events = found.value?.version === columns.version ? found.value : undefined;
  const shown = events ? [...events.row.keys()].filter((at) => !only || !matches || matches.has(events.row[at]!)) : [];
  return (
    <div class="wide events-list">
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      <PartialNote answer={events} />
      {!events && found.loading && <Loading what="Events are being read" />}
      {events && !shown.length && (
        <p class="dim">{events.row.length ? "No span that matches has an event." : "No span of this trace has an event."}</p>
      )}
      {shown.length > 0 && (
        <table aria-label="Events">
          <thead>
            <tr>
              <th class="number">At</th>
              <th>Event</th>
              <th>Span</th>
              <th>What it says</th>
            </tr>
          </thead>
          <tbody>
            {shown.slice(0, most).map((at) => {
              const row = events!.row[at]!;
              const isException = events!.name[at] === "exception";
              const classes = [isException && "exception", row === selected && "selected", matches?.has(row) && "matched"];
              return (
                <tr key={at} class={classes.filter(Boolean).join(" ")}>
                  <td class="number mono">+{durationText(events!.at[at]!)}</td>
                  <td>{isException ? <span class="badge bad">exception</span> : events!.name[at]!.slice(0, 200) || "(no name)"}</td>
                  <td>
                    <Service name={columns.services[columns.service[row]!]!.slice(0, 60)} />{" "}
                    <button type="button" class="quiet" onClick={() => select(row)}>
                      {columns.names[columns.name[row]!]!.slice(0, 120) || "(no name)"}
                    </button>
                  </td>
                  <td class="event-text">{events!.text[at]}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      {shown.length > most && (
        <button type="button" onClick={() => change({ rows: `${most + AT_ONCE}` }, true)}>
          {countText(shown.length - most)} more events
        </button>
      )}
      {events && events.left > 0 && <p class="dim">{countText(events.left)} later events are not listed; their spans have them.</p>}
    </div>
  );
}
