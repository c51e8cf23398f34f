import type { ViewProps } from "../App";

export function ServicesPage(_props: ViewProps) {
  return (
    <div class="page">
      <h1>Services</h1>
    </div>
  );
}
