import { serviceColour } from "../colour";

/** A service's name with its colour, and how many of its spans failed. */
export function Service(props: { name: string; errors?: number }) {
  return (
    <span class="service">
      <i style={{ background: serviceColour(props.name) }} />
      <span class="service-name">{props.name || "(no service)"}</span>
      {!!props.errors && (
        <span class="badge bad" title={`${props.errors} of its spans failed`}>
          {props.errors}
          <span class="hidden-label"> failed</span>
        </span>
      )}
    </span>
  );
}
