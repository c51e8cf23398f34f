const WIDE = 120;
const HIGH = 22;

/** A small line over time. */
export function Sparkline({ values, what }: { values: readonly (number | null)[]; what: string }) {
  const most = Math.max(...values.map((value) => value ?? 0), 1e-12);
  const x = (at: number) => ((at / Math.max(1, values.length - 1)) * WIDE).toFixed(1);
  const points = values.map((value, at) => `${x(at)},${(HIGH - 1 - ((value ?? 0) / most) * (HIGH - 3)).toFixed(1)}`);
  return (
    <svg class="spark" width={WIDE} height={HIGH} viewBox={`0 0 ${WIDE} ${HIGH}`} role="img" aria-label={what}>
      <polyline points={points.join(" ")} />
    </svg>
  );
}
