import { useAnswer } from "../api/useAnswer";
import { apiRange, type Range } from "../range";
import { attributeNames } from "./suggestions";

/** Which attributes are columns of the list. */
export function ColumnPicker(props: { range: Range; columns: readonly string[]; choose: (columns: readonly string[]) => void }) {
  const names = useAnswer(() => attributeNames(apiRange(props.range)), [Math.floor(props.range.fromS / 60)]);
  const toggle = (name: string) =>
    props.choose(props.columns.includes(name) ? props.columns.filter((one) => one !== name) : [...props.columns, name]);
  return (
    <details class="picker">
      <summary>Columns{props.columns.length ? ` (${props.columns.length})` : ""}</summary>
      <div class="picker-list">
        {[...new Set([...props.columns, ...(names.value ?? [])])].slice(0, 400).map((name) => (
          <label key={name}>
            <input type="checkbox" checked={props.columns.includes(name)} onChange={() => toggle(name)} /> {name.slice(0, 80)}
          </label>
        ))}
      </div>
    </details>
  );
}
