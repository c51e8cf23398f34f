/** The trace as an icicle: each span below its parent, in time; those that overlap below each other. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { colourNumber } from "../colour";
import { countedText, durationText } from "../format";
import { colourValue } from "../theme";
import { type Lanes, lanesOf } from "./lanes";
import { type Span, type Tree, endOf } from "./model";
import { useCanvas } from "./useCanvas";

const ROW = 20;
const LANES_MAX = 60;
const UNMATCHED_ALPHA = 0.35;

export function FlameGraph(props: { tree: Tree; matches: ReadonlySet<number> | null; zoom: Span; selected: number; select: (row: number) => void }) {
  const { tree, zoom } = props;
  const { canvas, width, themes } = useCanvas();
  const [hover, setHover] = useState(-1);
  const lanes = useMemo(() => lanesOf(tree, LANES_MAX), [tree]);
  useEffect(() => {
    if (width) draw(canvas.current!, tree, lanes, zoom, width, props.selected, props.matches);
  }, [tree, zoom, width, props.selected, props.matches, themes]);
  const rowAt = (event: MouseEvent): number => {
    const box = canvas.current!.getBoundingClientRect();
    const level = Math.floor((event.clientY - box.top) / ROW);
    const ns = zoom[0] + ((event.clientX - box.left) / box.width) * (zoom[1] - zoom[0]);
    for (let at = tree.rows - 1; at >= 0; at--) {
      const row = tree.order[at]!;
      if (lanes.lane[row] === level && tree.columns.start[row]! <= ns && endOf(tree.columns, row) >= ns) return row;
    }
    return -1;
  };
  const told = hover >= 0 ? hover : props.selected;
  return (
    <div class="flame">
      <p class="dim" role="status">
        {told >= 0
          ? `${tree.columns.services[tree.columns.service[told]!]}: ${tree.columns.names[tree.columns.name[told]!]}, ${durationText(tree.columns.duration[told]!)}, self ${durationText(tree.selfNs[told]!)}`
          : "Point at a span; click to open it. The waterfall shows the same with the keyboard."}
      </p>
      <canvas
        ref={canvas}
        aria-hidden="true"
        onMouseMove={(event) => setHover(rowAt(event))}
        onMouseLeave={() => setHover(-1)}
        onClick={(event) => props.select(rowAt(event))}
      />
      {lanes.left > 0 && <p class="dim">{countedText(lanes.left, "span")} more in the waterfall: there are {LANES_MAX} lines here.</p>}
    </div>
  );
}

function draw(
  canvas: HTMLCanvasElement,
  tree: Tree,
  { lane, count }: Lanes,
  zoom: Span,
  width: number,
  selected: number,
  matches: ReadonlySet<number> | null,
): void {
  const scale = devicePixelRatio || 1;
  canvas.style.height = `${count * ROW}px`;
  canvas.width = width * scale;
  canvas.height = count * ROW * scale;
  const brush = canvas.getContext("2d");
  if (!brush) return;
  const colours = tree.columns.services.map((service) => colourValue(`--service-${colourNumber(service)}`));
  const back = colourValue("--back");
  const text = colourValue("--text");
  brush.scale(scale, scale);
  brush.font = "11px system-ui, sans-serif";
  brush.textBaseline = "middle";
  const place = (ns: number) => ((ns - zoom[0]) / (zoom[1] - zoom[0])) * width;
  for (const row of tree.order) {
    const level = lane[row]!;
    const left = Math.max(0, place(tree.columns.start[row]!));
    const right = Math.min(width, place(endOf(tree.columns, row)));
    if (level < 0 || right < 0 || left > width) continue;
    const length = Math.max(1, right - left);
    const isLit = matches === null || matches.has(row);
    brush.globalAlpha = isLit ? 1 : UNMATCHED_ALPHA;
    brush.fillStyle = colours[tree.columns.service[row]!]!;
    brush.fillRect(left, level * ROW, length, ROW - 2);
    brush.globalAlpha = 1;
    if (row === selected) {
      brush.strokeStyle = text;
      brush.strokeRect(left + 0.5, level * ROW + 0.5, Math.max(1, length - 1), ROW - 3);
    }
    if (length > 40) {
      brush.save();
      brush.beginPath();
      brush.rect(left, level * ROW, length - 3, ROW);
      brush.clip();
      brush.fillStyle = isLit ? back : text;
      brush.fillText(tree.columns.names[tree.columns.name[row]!]!.slice(0, 100), left + 4, level * ROW + (ROW - 2) / 2);
      brush.restore();
    }
  }
}
