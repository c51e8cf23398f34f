import { useEffect, useRef, useState } from "preact/hooks";
import { useAnswer } from "../api/useAnswer";
import { apiRange, type Range } from "../range";
import { attributeNames } from "./suggestions";

const SHOWN_MAX = 400;

/** Which attributes are columns of the list. */
export function ColumnPicker(props: { range: Range; columns: readonly string[]; choose: (columns: readonly string[]) => void }) {
  const names = useAnswer(() => attributeNames(apiRange(props.range)), [Math.floor(props.range.fromS / 60)]);
  const [wanted, setWanted] = useState("");
  const picker = useClosing();
  const toggle = (name: string) =>
    props.choose(props.columns.includes(name) ? props.columns.filter((one) => one !== name) : [...props.columns, name]);
  const all = [...new Set([...props.columns, ...(names.value ?? [])])];
  const found = all.filter((name) => name.toLowerCase().includes(wanted.trim().toLowerCase()));
  return (
    <details class="picker" ref={picker}>
      <summary>Columns{props.columns.length ? ` (${props.columns.length})` : ""}</summary>
      <div class="picker-list">
        <input type="search" aria-label="Find an attribute" placeholder="part of a name" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
        {found.slice(0, SHOWN_MAX).map((name) => (
          <label key={name}>
            <input type="checkbox" checked={props.columns.includes(name)} onChange={() => toggle(name)} /> {name.slice(0, 80)}
          </label>
        ))}
        {!found.length && <p class="dim">{names.loading ? "Names are being looked for…" : "No attribute is called so."}</p>}
        {found.length > SHOWN_MAX && <p class="dim">{found.length - SHOWN_MAX} more: write a part of the name.</p>}
      </div>
    </details>
  );
}

/** Closed by Escape and by a press elsewhere. */
function useClosing() {
  const picker = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const close = (event: Event) => {
      const element = picker.current!;
      const isAway = event instanceof KeyboardEvent ? event.key === "Escape" : !element.contains(event.target as Node);
      if (!element.open || !isAway) return;
      if (element.contains(document.activeElement)) element.querySelector("summary")!.focus();
      element.open = false;
    };
    addEventListener("pointerdown", close);
    addEventListener("keydown", close, true);
    return () => {
      removeEventListener("pointerdown", close);
      removeEventListener("keydown", close, true);
    };
  }, []);
  return picker;
}
