/** Durations over time: the darker a cell, the more spans. A box drawn in it is told to who asked. */
import { useEffect, useRef, useState } from "preact/hooks";
import { clockText, countText, durationText } from "../format";
import { colourValue, onThemeChange } from "../theme";

export interface HeatCells {
  readonly timesS: readonly number[];
  /** Upper bounds of the rows in ns, rising. */
  readonly boundsNs: readonly number[];
  /** A row a bound, a value a time. */
  readonly counts: readonly (readonly number[])[];
}

export interface HeatBox {
  readonly fromS: number;
  readonly toS: number;
  /** Above this, up to that. */
  readonly lowNs: number;
  readonly highNs: number;
}

const LEFT = 52;
const BOTTOM = 20;
const TOP = 6;
const HEIGHT = 130;
const TICKS_S = [60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600];

export function HeatMap(props: { cells: HeatCells; chosen: (box: HeatBox) => void }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const newest = useRef(props);
  newest.current = props;
  const [drag, setDrag] = useState<{ x0: number; y0: number; x1: number; y1: number } | null>(null);
  const [hover, setHover] = useState("");

  useEffect(() => {
    const draw = () => canvas.current && paint(canvas.current, newest.current.cells);
    draw();
    const sized = new ResizeObserver(draw);
    sized.observe(canvas.current!.parentElement!);
    const unthemed = onThemeChange(draw);
    return () => {
      sized.disconnect();
      unthemed();
    };
  }, [props.cells]);

  const at = (event: PointerEvent) => {
    const frame = canvas.current!.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  };
  const begin = (event: PointerEvent) => {
    if (event.button !== 0 || !props.cells.timesS.length) return;
    canvas.current!.setPointerCapture(event.pointerId);
    const { x, y } = at(event);
    setDrag({ x0: x, y0: y, x1: x, y1: y });
  };
  const move = (event: PointerEvent) => {
    const { x, y } = at(event);
    if (drag) setDrag({ ...drag, x1: x, y1: y });
    setHover(cellText(props.cells, x, y, canvas.current!.clientWidth));
  };
  const end = () => {
    if (drag && Math.abs(drag.x1 - drag.x0) > 3 && Math.abs(drag.y1 - drag.y0) > 3) {
      props.chosen(boxOf(props.cells, drag, canvas.current!.clientWidth));
    }
    setDrag(null);
  };
  const box = drag && {
    left: `${Math.min(drag.x0, drag.x1)}px`,
    top: `${Math.min(drag.y0, drag.y1)}px`,
    width: `${Math.abs(drag.x1 - drag.x0)}px`,
    height: `${Math.abs(drag.y1 - drag.y0)}px`,
  };
  return (
    <div class="heat">
      <canvas
        ref={canvas}
        role="img"
        aria-label={`Durations over time. ${summary(props.cells)}`}
        onPointerDown={begin}
        onPointerMove={move}
        onPointerUp={end}
        onPointerCancel={() => setDrag(null)}
        onPointerLeave={() => setHover("")}
      />
      {box && <div class="heat-box" style={box} />}
      {hover && <div class="heat-hover">{hover}</div>}
    </div>
  );
}

function geometry(cells: HeatCells, width: number) {
  const columns = Math.max(1, cells.timesS.length);
  const rows = Math.max(1, cells.boundsNs.length);
  return { wide: (width - LEFT) / columns, high: (HEIGHT - TOP - BOTTOM) / rows, columns, rows };
}

function paint(canvas: HTMLCanvasElement, cells: HeatCells): void {
  const width = canvas.parentElement!.clientWidth;
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = HEIGHT * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HEIGHT}px`;
  const pen = canvas.getContext("2d")!;
  pen.scale(scale, scale);
  const { wide, high, rows } = geometry(cells, width);
  const most = Math.log1p(Math.max(1, ...cells.counts.flat()));
  pen.fillStyle = colourValue("--accent");
  cells.counts.forEach((row, r) =>
    row.forEach((count, c) => {
      if (!count) return;
      pen.globalAlpha = 0.15 + 0.85 * (Math.log1p(count) / most);
      pen.fillRect(LEFT + c * wide, HEIGHT - BOTTOM - (r + 1) * high, Math.ceil(wide), Math.ceil(high) - 0.5);
    }),
  );
  pen.globalAlpha = 1;
  pen.fillStyle = colourValue("--dim");
  pen.font = "11px system-ui";
  pen.textAlign = "right";
  const each = Math.max(1, Math.ceil(22 / high));
  for (let r = 0; r < rows; r += each) {
    const bound = cells.boundsNs[r];
    if (bound) pen.fillText(durationText(bound), LEFT - 6, HEIGHT - BOTTOM - (r + 1) * high + 8);
  }
  pen.textAlign = "center";
  const apart = TICKS_S.find((tick) => (tick / stepOf(cells)) * wide >= 70) ?? 86400;
  cells.timesS.forEach((at, c) => {
    const x = LEFT + (c + 1) * wide;
    if (at % apart === 0 && x > LEFT + 16 && x < width - 16) pen.fillText(clockText(at * 1000).slice(0, 5), x, HEIGHT - 6);
  });
}

function boxOf(cells: HeatCells, drag: { x0: number; y0: number; x1: number; y1: number }, width: number): HeatBox {
  const { wide, high, columns, rows } = geometry(cells, width);
  const column = (x: number) => Math.min(columns - 1, Math.max(0, Math.floor((x - LEFT) / wide)));
  const row = (y: number) => Math.min(rows - 1, Math.max(0, Math.floor((HEIGHT - BOTTOM - y) / high)));
  const [left, right] = [column(Math.min(drag.x0, drag.x1)), column(Math.max(drag.x0, drag.x1))];
  const [low, top] = [row(Math.max(drag.y0, drag.y1)), row(Math.min(drag.y0, drag.y1))];
  const step = stepOf(cells);
  return {
    // A cell holds what started in the step that ends at its time
    fromS: cells.timesS[left]! - step,
    toS: cells.timesS[right]!,
    lowNs: low > 0 ? cells.boundsNs[low - 1]! : 0,
    highNs: cells.boundsNs[top]!,
  };
}

function stepOf(cells: HeatCells): number {
  return cells.timesS.length > 1 ? cells.timesS[1]! - cells.timesS[0]! : 60;
}

function cellText(cells: HeatCells, x: number, y: number, width: number): string {
  const { wide, high } = geometry(cells, width);
  const c = Math.floor((x - LEFT) / wide);
  const r = Math.floor((HEIGHT - BOTTOM - y) / high);
  const count = cells.counts[r]?.[c];
  if (count === undefined) return "";
  const low = r > 0 ? cells.boundsNs[r - 1]! : 0;
  return `${clockText(cells.timesS[c]! * 1000)}: ${countText(count)} spans, ${durationText(low)} to ${durationText(cells.boundsNs[r]!)}`;
}

function summary(cells: HeatCells): string {
  const total = cells.counts.flat().reduce((sum, count) => sum + count, 0);
  if (!total) return "No spans";
  const highest = cells.boundsNs.at(-1)!;
  return `${countText(total)} spans, the longest up to ${durationText(highest)}`;
}
