/** The trace as an icicle: each span below its parent, in time. */
import { useEffect, useState } from "preact/hooks";
import { colourNumber } from "../colour";
import { durationText } from "../format";
import { colourValue } from "../theme";
import { type Span, type Tree, endOf } from "./model";
import { useCanvas } from "./useCanvas";

const ROW = 20;
const DEPTH_MAX = 60;

export function FlameGraph(props: { tree: Tree; zoom: Span; selected: number; select: (row: number) => void }) {
  const { tree, zoom } = props;
  const { canvas, width, themes } = useCanvas();
  const [hover, setHover] = useState(-1);
  const depth = Math.min(DEPTH_MAX, tree.deepest + 1);
  useEffect(() => {
    if (width) draw(canvas.current!, tree, zoom, width, depth, props.selected);
  }, [tree, zoom, width, props.selected, themes]);
  const rowAt = (event: MouseEvent): number => {
    const box = canvas.current!.getBoundingClientRect();
    const level = Math.floor((event.clientY - box.top) / ROW);
    const ns = zoom[0] + ((event.clientX - box.left) / box.width) * (zoom[1] - zoom[0]);
    for (let at = tree.rows - 1; at >= 0; at--) {
      const row = tree.order[at]!;
      if (tree.depth[row] === level && tree.columns.start[row]! <= ns && endOf(tree.columns, row) >= ns) return row;
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
      {tree.deepest >= DEPTH_MAX && <p class="dim">Levels below {DEPTH_MAX} are in the waterfall.</p>}
    </div>
  );
}

function draw(canvas: HTMLCanvasElement, tree: Tree, zoom: Span, width: number, depth: number, selected: number): void {
  const scale = devicePixelRatio || 1;
  canvas.style.height = `${depth * ROW}px`;
  canvas.width = width * scale;
  canvas.height = depth * ROW * scale;
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
    const level = tree.depth[row]!;
    const left = Math.max(0, place(tree.columns.start[row]!));
    const right = Math.min(width, place(endOf(tree.columns, row)));
    if (level >= depth || right < 0 || left > width) continue;
    const length = Math.max(1, right - left);
    brush.fillStyle = colours[tree.columns.service[row]!]!;
    brush.fillRect(left, level * ROW, length, ROW - 2);
    if (row === selected) {
      brush.strokeStyle = text;
      brush.strokeRect(left + 0.5, level * ROW + 0.5, Math.max(1, length - 1), ROW - 3);
    }
    if (length > 40) {
      brush.save();
      brush.beginPath();
      brush.rect(left, level * ROW, length - 3, ROW);
      brush.clip();
      brush.fillStyle = back;
      brush.fillText(tree.columns.names[tree.columns.name[row]!]!.slice(0, 100), left + 4, level * ROW + (ROW - 2) / 2);
      brush.restore();
    }
  }
}
