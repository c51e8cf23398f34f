import { clockText, dayText, zoneText } from "../format";
import { change } from "../router";
import { type Range, rangeParams, SINCE } from "../range";

/** The time range: the last so much, or from and to. */
export function RangePicker({ range }: { range: Range }) {
  const fixed = range.since === "";
  const known = fixed || (SINCE as readonly string[]).includes(range.since);
  return (
    <span class="range">
      <select
        aria-label="Time range"
        value={fixed ? "" : range.since}
        onChange={(event) => event.currentTarget.value && change(rangeParams(event.currentTarget.value))}
      >
        {fixed && <option value="">{fixedText(range)}</option>}
        {!known && <option value={range.since}>last {range.since}</option>}
        {SINCE.map((since) => (
          <option key={since} value={since}>
            last {since}
          </option>
        ))}
      </select>
      {fixed && (
        <button type="button" class="quiet" onClick={() => change(rangeParams("1h"))}>
          Back to now
        </button>
      )}
      <span class="dim zone" title="Times are in this browser's time zone">
        {zoneText()}
      </span>
    </span>
  );
}

function fixedText({ fromS, toS }: Range): string {
  const sameDay = dayText(fromS * 1000) === dayText(toS * 1000);
  return `${dayText(fromS * 1000)} ${clockText(fromS * 1000)} – ${sameDay ? "" : dayText(toS * 1000)} ${clockText(toS * 1000)}`;
}
