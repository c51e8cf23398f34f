import type { ViewProps } from "../App";

export function LivePage(_props: ViewProps) {
  return (
    <div class="page">
      <h1>Live</h1>
    </div>
  );
}
