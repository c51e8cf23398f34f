/** The services: how much, how often wrong, how slow; their operations; and who calls whom. */
import { useMemo, useState } from "preact/hooks";
import { useAnswer } from "../api/useAnswer";
import type { ViewProps } from "../App";
import { durationText, percentText, rateText } from "../format";
import { useKeys } from "../keys";
import { RangePicker } from "../parts/RangePicker";
import { Service } from "../parts/Service";
import { Sparkline } from "../parts/Sparkline";
import { ErrorBox, Loading, Nothing, PartialNote } from "../parts/States";
import { quoted } from "../query";
import { type Range, rangeOf } from "../range";
import { change, urlOf } from "../router";
import { callsOf, ENTRY, type Figures, figuresBy, highestRate } from "./figures";
import { ServiceMap } from "./ServiceMap";

const COLUMNS = { name: "Service", rate: "Rate", errorShare: "Errors", p50Ns: "p50", p95Ns: "p95", p99Ns: "p99" } as const;
type Column = keyof typeof COLUMNS;
type Times = Readonly<Record<string, string | null>>;

export function ServicesPage({ params }: ViewProps) {
  const isMap = params.get("show") === "map";
  const isAll = params.get("of") === "all";
  const open = params.get("service");
  const sort = (params.get("sort") ?? "errorShare") as Column;
  const [turn, setTurn] = useState(0);
  const range = useMemo(() => rangeOf(params), [params.get("since"), params.get("from"), params.get("to"), turn]);
  const times: Times = Object.fromEntries(["since", "from", "to"].map((name) => [name, params.get(name)]));
  const counted = isAll ? "{}" : `{ ${ENTRY} }`;
  const found = useAnswer((signal) => figuresBy("resource.service.name", counted, range, signal), [counted, range]);
  const calls = useAnswer(isMap ? (signal) => callsOf(range, signal) : null, [range]);
  const rows = useMemo(() => sortedRows(found.value?.rows ?? [], sort in COLUMNS ? sort : "errorShare"), [found.value, sort]);
  useKeys("Services", [
    { keys: "m", does: "map or list", run: () => change({ show: isMap ? null : "map" }) },
    { keys: "r", does: "ask again", run: () => setTurn((before) => before + 1) },
  ]);
  const error = found.error ?? (isMap ? calls.error : undefined);

  return (
    <div class="page">
      <div class="bar">
        <h1>Services</h1>
        <div class="bar-end">
          <span role="group" aria-label="Show" class="group">
            <button type="button" aria-pressed={!isMap} onClick={() => change({ show: null })}>
              List
            </button>
            <button type="button" aria-pressed={isMap} onClick={() => change({ show: "map" })}>
              Map
            </button>
          </span>
          <select
            aria-label="Which spans count"
            title="Which spans count"
            value={isAll ? "all" : ""}
            onChange={(event) => change({ of: event.currentTarget.value })}
          >
            <option value="">requests (entry spans)</option>
            <option value="all">all spans</option>
          </select>
          <RangePicker range={range} />
        </div>
      </div>
      {error && <ErrorBox error={error} again={() => setTurn((before) => before + 1)} />}
      <PartialNote answer={found.value} />
      {isMap && calls.value?.message !== found.value?.message && <PartialNote answer={calls.value} />}
      {(found.loading || (isMap && calls.loading)) && !found.value && <Loading what="Services are being measured" />}
      {found.value && !rows.length && <Nothing what="service" query="" />}
      {isMap && calls.value && rows.length > 0 && <ServiceMap calls={calls.value.calls} figures={rows} times={times} />}
      {open !== null && <Operations service={open} isAll={isAll} range={range} times={times} />}
      {!isMap && rows.length > 0 && <List rows={rows} sort={sort} times={times} params={params} />}
    </div>
  );
}

function sortedRows(rows: readonly Figures[], sort: Column): readonly Figures[] {
  const byName = (a: Figures, b: Figures) => (a.name < b.name ? -1 : 1);
  if (sort === "name") return [...rows].sort(byName);
  return [...rows].sort((a, b) => (b[sort] || 0) - (a[sort] || 0) || b.rate - a.rate || byName(a, b));
}

function List(props: { rows: readonly Figures[]; sort: Column; times: Times; params: URLSearchParams }) {
  const { rows, sort, times, params } = props;
  const most = highestRate(rows);
  return (
    <div class="wide">
      <table class="services-table">
        <thead>
          <tr>
            {(Object.keys(COLUMNS) as Column[]).map((column) => (
              <th key={column} class={column === "name" ? "" : "number"} aria-sort={column === sort ? "descending" : "none"}>
                <button type="button" class="head" onClick={() => change({ sort: column }, true)}>
                  {COLUMNS[column]}
                  {column === sort ? " ↓" : ""}
                </button>
              </th>
            ))}
            <th>Over time</th>
            <th>Go to</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.name}>
              <td>
                <a href={urlOf("/services", { service: row.name }, params)} title="Its operations">
                  <Service name={row.name.slice(0, 100)} />
                </a>
              </td>
              <FigureCells row={row} most={most} />
              <td class="go">
                <a href={urlOf("/", { q: `{ resource.service.name = ${quoted(row.name)} }`, ...times })}>Traces</a>
                {row.errorShare > 0 && (
                  <a class="bad-text" href={urlOf("/", { q: `{ resource.service.name = ${quoted(row.name)} && status = error }`, ...times })}>
                    Errors
                  </a>
                )}
                <a href={urlOf("/compare", { q: `{ resource.service.name = ${quoted(row.name)} }`, sel: row.errorShare > 0 ? null : "slowest", ...times })}>
                  Compare
                </a>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** most: the highest rate of the table. */
function FigureCells({ row, most }: { row: Figures; most: number }) {
  return (
    <>
      <td class="number">{rateText(row.rate, most)}</td>
      <td class={row.errorShare > 0 ? "number bad-text" : "number dim"}>{percentText(row.errorShare)}</td>
      <td class="number">{durationText(row.p50Ns)}</td>
      <td class="number">{durationText(row.p95Ns)}</td>
      <td class="number">{durationText(row.p99Ns)}</td>
      <td>
        <Sparkline values={row.spark} what={`Rate of ${row.name.slice(0, 100)}`} />
      </td>
    </>
  );
}

function Operations(props: { service: string; isAll: boolean; range: Range; times: Times }) {
  const { service, isAll, range, times } = props;
  const mine = `resource.service.name = ${quoted(service)}`;
  const query = isAll ? `{ ${mine} }` : `{ ${mine} && ${ENTRY} }`;
  const found = useAnswer((signal) => figuresBy("name", query, range, signal), [query, range]);
  const rows = useMemo(() => sortedRows(found.value?.rows ?? [], "rate"), [found.value]);
  const most = highestRate(rows);
  const explore = (name: string, more = "") => urlOf("/", { q: `{ ${mine} && name = ${quoted(name)}${more} }`, ...times });
  return (
    <section class="panel operations" aria-label={`Operations of ${service.slice(0, 100)}`}>
      <h2>
        Operations of <Service name={service.slice(0, 100)} />
        <button type="button" class="quiet panel-link" onClick={() => change({ service: null })}>
          Close
        </button>
      </h2>
      {found.error && <ErrorBox error={found.error} again={found.again} />}
      <PartialNote answer={found.value} />
      {found.loading && !found.value && <Loading what="Operations are being measured" />}
      {found.value && !rows.length && <p>None in this time.</p>}
      {rows.length > 0 && (
        <div class="wide">
          <table class="services-table">
            <thead>
              <tr>
                <th>Operation</th>
                {["Rate", "Errors", "p50", "p95", "p99"].map((name) => (
                  <th key={name} class="number">
                    {name}
                  </th>
                ))}
                <th>Over time</th>
                <th>Go to</th>
              </tr>
            </thead>
            <tbody>
              {rows.slice(0, 200).map((row) => (
                <tr key={row.name}>
                  <td class="operation">{row.name.slice(0, 100) || "(no name)"}</td>
                  <FigureCells row={row} most={most} />
                  <td class="go">
                    <a href={explore(row.name)}>Traces</a>
                    {row.errorShare > 0 && (
                      <a class="bad-text" href={explore(row.name, " && status = error")}>
                        Errors
                      </a>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
