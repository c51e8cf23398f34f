import type { ViewProps } from "../App";

export function ComparePage(_props: ViewProps) {
  return (
    <div class="page">
      <h1>Compare</h1>
    </div>
  );
}
