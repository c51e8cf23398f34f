import { zoneText } from "../format";
import { change } from "../router";
import { type Range, rangeParams, SINCE } from "../range";
import { MomentField } from "./MomentField";

const FIXED = "fixed";

/** The time range: the last so much, or from one moment to another. */
export function RangePicker({ range }: { range: Range }) {
  const fixed = range.since === "";
  const known = fixed || (SINCE as readonly string[]).includes(range.since);
  return (
    <span class="range">
      <select
        aria-label="Time range"
        value={fixed ? FIXED : range.since}
        onChange={(event) => change(rangeParams(event.currentTarget.value === FIXED ? range : event.currentTarget.value))}
      >
        {!known && <option value={range.since}>last {range.since}</option>}
        {SINCE.map((since) => (
          <option key={since} value={since}>
            last {since}
          </option>
        ))}
        <option value={FIXED}>from – to</option>
      </select>
      {fixed && (
        <>
          <MomentField label="From" unixS={range.fromS} belowS={range.toS} change={(fromS) => change(rangeParams({ ...range, fromS }))} />
          <MomentField label="To" unixS={range.toS} aboveS={range.fromS} change={(toS) => change(rangeParams({ ...range, toS }))} />
          <button type="button" class="quiet" onClick={() => change(rangeParams("1h"))}>
            Back to now
          </button>
        </>
      )}
      <span class="dim zone" title="Times are in this browser's time zone">
        {zoneText()}
      </span>
    </span>
  );
}
