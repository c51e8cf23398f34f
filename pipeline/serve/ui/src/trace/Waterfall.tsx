/** The waterfall: as many rows as the window shows are in the document, however many the trace has. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { serviceColour } from "../colour";
import { durationText } from "../format";
import { STATUS_ERROR, type Span, type Tree } from "./model";

export const ROW_PX = 26;
const BEYOND = 12; // rows kept above and below what is seen

export function Waterfall(props: {
  tree: Tree;
  shown: readonly number[];
  collapsed: ReadonlySet<number>;
  matches: ReadonlySet<number> | null;
  selected: number;
  zoom: Span;
  critical: boolean;
  select: (row: number) => void;
  toggle: (row: number) => void;
}) {
  const { tree, shown, selected, zoom } = props;
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState<readonly [number, number]>([0, 60]);
  const look = () => {
    const element = box.current;
    if (!element) return;
    const first = Math.max(0, Math.floor(element.scrollTop / ROW_PX) - BEYOND);
    const last = Math.ceil((element.scrollTop + element.clientHeight) / ROW_PX) + BEYOND;
    setSeen((before) => (before[0] === first && before[1] === last ? before : [first, last]));
  };
  useLayoutEffect(look, [shown]);
  useEffect(() => {
    addEventListener("resize", look);
    return () => removeEventListener("resize", look);
  }, []);
  useEffect(() => {
    const element = box.current;
    const at = shown.indexOf(selected);
    if (!element || at < 0) return;
    const top = at * ROW_PX;
    if (top < element.scrollTop || top + ROW_PX > element.scrollTop + element.clientHeight) {
      element.scrollTop = Math.max(0, top - element.clientHeight / 2);
    }
  }, [selected, shown]);
  return (
    <div class="waterfall-frame">
      <Ruler zoom={zoom} />
      <div
      ref={box}
      class="waterfall"
      role="tree"
      aria-label="Spans"
      tabIndex={0}
      aria-activedescendant={selected >= 0 ? `span-${selected}` : undefined}
      onScroll={look}
      style={{ "--rows": shown.length }}
    >
      <div class="waterfall-rows" role="presentation" style={{ height: `${shown.length * ROW_PX}px` }}>
        {shown.slice(seen[0], seen[1]).map((row, index) => (
          <WaterfallRow
            key={row}
            tree={tree}
            row={row}
            top={(seen[0] + index) * ROW_PX}
            collapsed={props.collapsed.has(row)}
            matched={props.matches === null ? null : props.matches.has(row)}
            selected={row === selected}
            zoom={zoom}
            critical={props.critical}
            select={props.select}
            toggle={props.toggle}
          />
        ))}
      </div>
      </div>
    </div>
  );
}

function Ruler(props: { zoom: Span }) {
  return (
    <div class="ruler" aria-hidden="true">
      {[0, 0.25, 0.5, 0.75, 1].map((part) => (
        <span key={part}>{durationText(props.zoom[0] + part * (props.zoom[1] - props.zoom[0]))}</span>
      ))}
    </div>
  );
}

function WaterfallRow(props: {
  tree: Tree;
  row: number;
  top: number;
  collapsed: boolean;
  matched: boolean | null;
  selected: boolean;
  zoom: Span;
  critical: boolean;
  select: (row: number) => void;
  toggle: (row: number) => void;
}) {
  const { tree, row, zoom } = props;
  const { columns } = tree;
  const service = columns.services[columns.service[row]!]!;
  const name = columns.names[columns.name[row]!]!.slice(0, 200);
  const failed = columns.code[row] === STATUS_ERROR;
  const below = tree.size[row]! - 1;
  const hidesError = props.collapsed && tree.errorsBelow[row]! > 0;
  const duration = durationText(columns.duration[row]!);
  const share = (ns: number) => ((ns - zoom[0]) / (zoom[1] - zoom[0])) * 100;
  const left = Math.max(0, share(columns.start[row]!));
  const right = Math.min(100, share(columns.start[row]! + Math.max(0, columns.duration[row]!)));
  const classes = ["span-row", props.selected && "selected", props.matched && "matched", props.matched === false && "unmatched"];
  return (
    <div
      id={`span-${row}`}
      class={classes.filter(Boolean).join(" ")}
      role="treeitem"
      aria-level={tree.depth[row]! + 1}
      aria-selected={props.selected}
      aria-expanded={below ? !props.collapsed : undefined}
      aria-label={`${service || "no service"}: ${name || "no name"}, ${duration}${failed ? ", error" : ""}`}
      style={{ transform: `translateY(${props.top}px)` }}
      onClick={() => props.select(row)}
    >
      <span class="span-label" style={{ paddingLeft: `${Math.min(24, tree.depth[row]!) * 14}px` }}>
        <span class="twist" aria-hidden="true" onClick={(event) => below && (event.stopPropagation(), props.toggle(row))}>
          {below ? (props.collapsed ? "▸" : "▾") : ""}
        </span>
        <i class="dot" style={{ background: serviceColour(service) }} />
        {(failed || hidesError) && (
          <b class={failed ? "error-mark" : "error-mark hidden-error"} title={failed ? "error" : `${tree.errorsBelow[row]} errors below`}>
            !
          </b>
        )}
        <span class="span-service">{service.slice(0, 60)}</span> <span class="span-name">{name || "(no name)"}</span>
        {tree.orphans.has(row) && (
          <span class="badge warn" title="The span above it did not come: it is late, was not sampled, or was lost">
            parent not received
          </span>
        )}
        {props.collapsed && <span class="dim"> +{below}</span>}
      </span>
      <span class="span-time">
        {right >= 0 && left <= 100 && (
          <>
            <i class="span-bar" style={{ left: `${left}%`, width: `max(2px, ${Math.max(0, right - left)}%)`, background: serviceColour(service) }} />
            {props.critical &&
              tree.critical.get(row)?.map(([from, to]) => {
                const begin = Math.max(0, share(from));
                const end = Math.min(100, share(to));
                return end > begin ? <i key={from} class="critical-bar" style={{ left: `${begin}%`, width: `${end - begin}%` }} /> : null;
              })}
            <span class={right > 80 && left < 20 ? "span-took inside" : "span-took"} style={tookPlace(left, right)}>
              {duration}
            </span>
          </>
        )}
      </span>
    </div>
  );
}

/** Behind the bar where there is room, else before it, else at its end. */
function tookPlace(left: number, right: number): Record<string, string> {
  if (right <= 80) return { left: `${right}%` };
  return left >= 20 ? { right: `${100 - left}%` } : { right: `${100 - right}%` };
}
