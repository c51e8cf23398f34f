/** A line or bars over time (uPlot); dragging over it asks for that time. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clockText } from "../format";
import { colourValue, onThemeChange } from "../theme";

export interface Line {
  readonly name: string;
  /** A CSS variable. */
  readonly colour: string;
  readonly values: readonly (number | null)[];
}

interface Props {
  readonly title: string;
  readonly timesS: readonly number[];
  readonly lines: readonly Line[];
  readonly text: (value: number) => string;
  /** The same at the axis: in one unit. */
  readonly tick: (value: number) => string;
  readonly zoom: (fromS: number, toS: number) => void;
  readonly bars?: boolean;
  readonly height?: number;
}

export function LineChart(props: Props) {
  const holder = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const newest = useRef(props);
  newest.current = props;
  const shape = `${props.lines.map((line) => line.name + line.colour).join()} ${props.bars}`;

  useEffect(() => {
    const element = holder.current!;
    const draw = () => {
      chart.current?.destroy();
      chart.current = new uPlot(options(newest, element.clientWidth), data(newest.current), element);
    };
    draw();
    const sized = new ResizeObserver(() => {
      const width = element.clientWidth;
      if (width > 0 && width !== chart.current?.width) chart.current?.setSize({ width, height: newest.current.height ?? 130 });
    });
    sized.observe(element);
    const unthemed = onThemeChange(draw);
    return () => {
      sized.disconnect();
      unthemed();
      chart.current?.destroy();
      chart.current = null;
    };
  }, [shape]);
  useEffect(() => chart.current?.setData(data(props)), [props.timesS, props.lines]);

  return <div ref={holder} class="line-chart" role="img" aria-label={summary(props)} />;
}

function data({ timesS, lines }: Props): uPlot.AlignedData {
  return [[...timesS], ...lines.map((line) => [...line.values])];
}

function summary({ title, lines, text }: Props): string {
  const told = lines.map((line) => {
    const known = line.values.filter((value): value is number => value !== null);
    return known.length ? `${line.name}: at most ${text(Math.max(...known))}, last ${text(known.at(-1)!)}` : `${line.name}: nothing`;
  });
  return `${title}. ${told.join("; ")}`;
}

function options(newest: { current: Props }, width: number): uPlot.Options {
  const { lines, bars, height } = newest.current;
  const dim = colourValue("--dim");
  const grid = { stroke: colourValue("--line"), width: 1 };
  const axis = { stroke: dim, grid, ticks: { show: false }, font: "11px system-ui" };
  const paths = bars ? { paths: uPlot.paths.bars!({ size: [0.85, 60], align: -1 }) } : {};
  return {
    width: Math.max(width, 50),
    height: height ?? 130,
    legend: { show: false },
    padding: [8, 18, 0, 0],
    cursor: { points: { size: 6 }, y: false, drag: { x: true, y: false, setScale: false } },
    scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [
      { ...axis, size: 24, space: 70, values: (_plot, splits) => splits.map((at) => clockText(at * 1000).slice(0, 5)) },
      { ...axis, size: 52, space: 28, values: (_plot, splits) => splits.map((value) => newest.current.tick(value)) },
    ],
    series: [
      {},
      ...lines.map((line) => {
        const stroke = colourValue(line.colour);
        return { label: line.name, stroke, width: 1.5, points: { show: false }, ...(bars ? { fill: stroke } : {}), ...paths };
      }),
    ],
    hooks: {
      setSelect: [
        (plot) => {
          const { left, width: wide } = plot.select;
          if (wide < 4) return;
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          newest.current.zoom(plot.posToVal(left, "x"), plot.posToVal(left + wide, "x"));
        },
      ],
    },
  };
}
