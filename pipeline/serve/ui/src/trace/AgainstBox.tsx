/** Asks for the trace to compare this one with: an ID, or one of those with the same root. */
import { useId, useState } from "preact/hooks";
import { ask } from "../api/client";
import type { SearchAnswer } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { agoText, durationText } from "../format";
import { countsOf } from "../explore/TraceList";
import { quoted } from "../query";
import { go } from "../router";
import { writtenTraceId } from "../traceId";
import { differenceUrl } from "./DifferencePage";
import { type Tree, rootOf } from "./model";

const OFFERED = 12;
const AROUND_S = 3600;

export function AgainstBox({ tree }: { tree: Tree }) {
  const [isAsked, setAsked] = useState(false);
  const list = useId();
  const { columns } = tree;
  const root = rootOf(tree);
  const startS = Number(BigInt(columns.startUnixNano) / 1_000_000_000n);
  const about = {
    q: `{ rootServiceName = ${quoted(columns.services[columns.service[root]!]!)} && rootName = ${quoted(columns.names[columns.name[root]!]!)} }`,
    start: startS - AROUND_S,
    end: startS + AROUND_S,
    limit: OFFERED + 1,
  };
  const alike = useAnswer(isAsked ? (signal) => ask<SearchAnswer>("/api/search", about, signal) : null, [columns.traceId]);
  const open = (event: SubmitEvent) => {
    event.preventDefault();
    const id = writtenTraceId(event.target as HTMLFormElement, "against");
    if (id) go(differenceUrl(id, columns.traceId));
  };
  return (
    <form class="against" onSubmit={open}>
      <input
        name="against"
        list={list}
        aria-label="Compare with the trace"
        placeholder="Compare with trace ID"
        autocomplete="off"
        spellcheck={false}
        title="This trace against another; those with the same root are offered"
        onFocus={() => setAsked(true)}
        onInput={(event) => event.currentTarget.setCustomValidity("")}
      />
      <datalist id={list}>
        {(alike.value?.traces ?? [])
          .filter((one) => one.traceID !== columns.traceId)
          .map((one) => (
            <option key={one.traceID} value={one.traceID}>
              {`${durationText((one.durationMs ?? 0) * 1e6)}, ${countsOf(one).errors} errors, ${agoText(Number(one.startTimeUnixNano ?? 0) / 1e6)}`}
            </option>
          ))}
      </datalist>
      <button type="submit">Compare</button>
    </form>
  );
}
