/** Who calls whom: services as boxes, calls as lines, red where they fail. */
import { useMemo } from "preact/hooks";
import { serviceColour } from "../colour";
import { percentText, rateText } from "../format";
import { quoted } from "../query";
import { urlOf } from "../router";
import { type Call, type Figures, highestRate } from "./figures";
import { type Node, placed } from "./layout";

const WIDE = 180;
const HIGH = 50;
const ACROSS = 320;
const DOWN = 78;
const PAD = 24;
const NAME_SHOWN_MAX = 17;
const MANY_FAIL = 0.05;
const TOLD_CALLS_MAX = 40; // with more, what a line says is told when it is pointed at

interface Props {
  readonly calls: readonly Call[];
  readonly figures: readonly Figures[];
  readonly times: Readonly<Record<string, string | null>>;
}

export function ServiceMap({ calls, figures, times }: Props) {
  const nodes = useMemo(() => placed(calls, figures.map((one) => one.name)), [calls, figures]);
  const at = new Map(nodes.map((node) => [node.name, node]));
  const byName = new Map(figures.map((one) => [one.name, one]));
  const lowest = Math.min(0, ...nodes.map((node) => node.row));
  const rows = Math.max(0, ...nodes.map((node) => node.row)) - lowest;
  const width = Math.max(0, ...nodes.map((node) => node.column)) * ACROSS + WIDE + 2 * PAD;
  const height = rows * DOWN + HIGH + 2 * PAD;
  const x = (node: Node) => PAD + node.column * ACROSS;
  const y = (node: Node) => PAD + (node.row - lowest) * DOWN;
  const most = Math.max(highestRate(calls), 1e-9);
  const like = Math.max(most, highestRate(figures));
  const isDense = calls.length > TOLD_CALLS_MAX;
  const ordered = [...calls].sort((a, b) => a.errorShare - b.errorShare);

  return (
    <div class="map" tabIndex={0} role="region" aria-label="Map of the services">
      <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`}>
        <defs>
          {["good", "some", "bad"].map((kind) => (
            <marker key={kind} id={`arrow-${kind}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">
              <path d="M0 0L8 4L0 8z" class={`arrow ${kind}`} />
            </marker>
          ))}
        </defs>
        {ordered.map((call) => (
          <CallLine key={`${call.from}\n${call.to}`} call={call} most={most} like={like} isDense={isDense} times={times} {...ends(at.get(call.from)!, at.get(call.to)!, x, y)} />
        ))}
        {nodes.map((node) => (
          <Box key={node.name} node={node} x={x(node)} y={y(node)} figures={byName.get(node.name)} like={like} times={times} />
        ))}
      </svg>
    </div>
  );
}

/** Some errors are not yet many. */
function kindOf(errorShare: number): "good" | "some" | "bad" {
  return errorShare >= MANY_FAIL ? "bad" : errorShare > 0 ? "some" : "good";
}

interface Ends {
  readonly path: string;
  readonly x: number;
  readonly y: number;
}

function ends(from: Node, to: Node, x: (node: Node) => number, y: (node: Node) => number): Ends {
  const [x0, y0, x1, y1] = [x(from) + WIDE, y(from) + HIGH / 2, x(to), y(to) + HIGH / 2];
  if (to.column > from.column) {
    const bend = Math.max(40, (x1 - x0) / 2);
    return { path: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1 - 2} ${y1}`, x: x0 + (x1 - x0) * 0.6, y: y0 + (y1 - y0) * 0.7 }; // past the middle, where lines have parted
  }
  // Backwards, or to itself: below both boxes
  const below = Math.max(y0, y1) + HIGH;
  return { path: `M${x0} ${y0}C${x0 + 50} ${below} ${x1 - 50} ${below} ${x1 - 2} ${y1}`, x: (x0 + x1) / 2, y: below - HIGH / 3 };
}

function CallLine(props: { call: Call; most: number; like: number; isDense: boolean; times: Props["times"] } & Ends) {
  const { call, most, like, isDense, path, x, y, times } = props;
  const kind = kindOf(call.errorShare);
  const fails = call.errorShare ? `${percentText(call.errorShare)} fail` : "";
  const told = [rateText(call.rate, like), fails].filter(Boolean).join(", ");
  const query = `{ parent.resource.service.name = ${quoted(call.from)} && resource.service.name = ${quoted(call.to)} }`;
  return (
    <a href={urlOf("/", { q: query, ...times })} aria-label={`${call.from} calls ${call.to}: ${told}`}>
      <title>{`${call.from} calls ${call.to}: ${told}`}</title>
      <path d={path} class={`call ${kind}`} style={{ strokeWidth: `${(isDense ? 0.5 : 1.5) + (isDense ? 1 : 3) * Math.sqrt(call.rate / most)}px` }} marker-end={`url(#arrow-${kind})`} />
      {!isDense && (
        <text x={x} y={y - 6} class={`call-text ${kind}`} text-anchor="middle">
          {rateText(call.rate, like)}
        </text>
      )}
      {fails && !isDense && (
        <text x={x} y={y + 14} class={`call-text ${kind}`} text-anchor="middle">
          {fails}
        </text>
      )}
    </a>
  );
}

function Box(props: { node: Node; x: number; y: number; figures: Figures | undefined; like: number; times: Props["times"] }) {
  const { node, x, y, figures, like, times } = props;
  const name = node.name || "(no service)";
  const short = name.length > NAME_SHOWN_MAX ? `${name.slice(0, NAME_SHOWN_MAX - 1)}…` : name;
  const kind = kindOf(figures?.errorShare ?? 0);
  const told = figures ? `${rateText(figures.rate, like)} · ${percentText(figures.errorShare)} errors` : "no entry spans";
  return (
    <a href={urlOf("/services", { service: node.name, ...times })} aria-label={`${name}: ${told}`}>
      <title>{name}</title>
      <rect x={x} y={y} width={WIDE} height={HIGH} rx="7" class={`box ${kind}`} />
      <rect x={x} y={y} width="6" height={HIGH} rx="3" style={{ fill: serviceColour(node.name) }} />
      <text x={x + 16} y={y + 21} class="box-name">
        {short}
      </text>
      <text x={x + 16} y={y + 38} class={`box-told ${kind}`}>
        {told}
      </text>
    </a>
  );
}
