/** The whole trace, small: a drag zooms the waterfall's time. */
import { useEffect, useState } from "preact/hooks";
import { colourNumber } from "../colour";
import { colourValue } from "../theme";
import { STATUS_ERROR, type Span, type Tree } from "./model";
import { useCanvas } from "./useCanvas";

const HEIGHT = 64;
const LEAST_SHARE = 0.002; // a shorter drag is a click

export function Minimap(props: { tree: Tree; zoom: Span; setZoom: (zoom: Span | null) => void }) {
  const { tree, zoom } = props;
  const { canvas, width, themes } = useCanvas();
  const [drag, setDrag] = useState<Span | null>(null);
  useEffect(() => {
    if (width) draw(canvas.current!, tree, width);
  }, [tree, width, themes]);
  const at = (event: PointerEvent): number => {
    const box = canvas.current!.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * tree.totalNs;
  };
  const shown: Span = drag ? [Math.min(...drag), Math.max(...drag)] : zoom;
  const share = (ns: number) => (ns / tree.totalNs) * 100;
  const zoomed = zoom[0] > 0 || zoom[1] < tree.totalNs;
  return (
    <div class="minimap">
      <div
        class="minimap-box"
        onPointerDown={(event) => {
          (event.currentTarget as Element).setPointerCapture(event.pointerId);
          setDrag([at(event), at(event)]);
        }}
        onPointerMove={(event) => drag && setDrag([drag[0], at(event)])}
        onPointerUp={() => {
          if (drag && Math.abs(drag[1] - drag[0]) > LEAST_SHARE * tree.totalNs) props.setZoom([Math.min(...drag), Math.max(...drag)]);
          setDrag(null);
        }}
      >
        <canvas ref={canvas} height={HEIGHT} aria-hidden="true" />
        {(zoomed || drag) && <i class="minimap-out" style={{ left: 0, width: `${share(shown[0])}%` }} />}
        {(zoomed || drag) && <i class="minimap-out" style={{ left: `${share(shown[1])}%`, right: 0 }} />}
      </div>
      {zoomed && (
        <button type="button" class="quiet" onClick={() => props.setZoom(null)}>
          Show the whole trace
        </button>
      )}
    </div>
  );
}

function draw(canvas: HTMLCanvasElement, tree: Tree, width: number): void {
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = HEIGHT * scale;
  const brush = canvas.getContext("2d");
  if (!brush) return;
  const colours = tree.columns.services.map((service) => colourValue(`--service-${colourNumber(service)}`));
  const bad = colourValue("--bad");
  brush.scale(scale, scale);
  const line = Math.max(0.5, Math.min(4, HEIGHT / tree.rows));
  const step = Math.max(1, Math.floor(tree.rows / 20_000)); // more lines than that are one on the other
  for (let at = 0; at < tree.rows; at += step) {
    const row = tree.order[at]!;
    const left = (tree.columns.start[row]! / tree.totalNs) * width;
    const length = Math.max(1, (Math.max(0, tree.columns.duration[row]!) / tree.totalNs) * width);
    brush.fillStyle = tree.columns.code[row] === STATUS_ERROR ? bad : colours[tree.columns.service[row]!]!;
    brush.fillRect(left, (at / tree.rows) * HEIGHT, length, line);
  }
}
