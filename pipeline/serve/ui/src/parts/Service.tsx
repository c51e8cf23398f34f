import { serviceColour } from "../colour";

/** A service's name with its colour. */
export function Service(props: { name: string; note?: string }) {
  return (
    <span class="service">
      <i style={{ background: serviceColour(props.name) }} />
      <span class="service-name">{props.name || "(no service)"}</span>
      {props.note && <span class="dim">{props.note}</span>}
    </span>
  );
}
