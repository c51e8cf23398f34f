/** Where a trace's time went, by service and operation. */
import { countText, durationText, percentText } from "../format";
import { Service } from "../parts/Service";
import { type Tree, operationsOf } from "./model";

const SHOWN_MAX = 500;

export function OperationTable(props: { tree: Tree; find: (text: string) => void }) {
  const rows = operationsOf(props.tree);
  const all = rows.reduce((sum, row) => sum + row.selfNs, 0) || 1;
  return (
    <div class="wide operation-table">
      <table>
        <thead>
          <tr>
            <th>Service</th>
            <th>Operation</th>
            <th class="number">Spans</th>
            <th class="number">Errors</th>
            <th class="number">Self time</th>
            <th class="number">of all</th>
            <th class="number">Total</th>
            <th class="number">Longest</th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, SHOWN_MAX).map((row) => (
            <tr key={`${row.service} ${row.name}`}>
              <td>
                <Service name={row.service} />
              </td>
              <td>
                <button type="button" class="quiet" onClick={() => props.find(row.name)}>
                  {row.name.slice(0, 120) || "(no name)"}
                </button>
              </td>
              <td class="number">{countText(row.count)}</td>
              <td class={row.errors ? "number bad-text" : "number"}>{countText(row.errors)}</td>
              <td class="number">{durationText(row.selfNs)}</td>
              <td class="number">{percentText(row.selfNs / all)}</td>
              <td class="number">{durationText(row.totalNs)}</td>
              <td class="number">{durationText(row.longestNs)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > SHOWN_MAX && <p class="dim">{rows.length - SHOWN_MAX} more with less self time</p>}
    </div>
  );
}
