import type { ViewProps } from "../App";

export function SystemPage(_props: ViewProps) {
  return (
    <div class="page">
      <h1>System</h1>
    </div>
  );
}
