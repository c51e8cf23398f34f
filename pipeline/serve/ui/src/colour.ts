/** One colour a service, the same on every page and for everybody; told apart by the colour-blind, see style.css. */
export const SERVICE_COLOURS = 12;
const HASHED_MAX = 40; // characters: where a name is shown cut, it keeps its colour

export function colourNumber(service: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < Math.min(service.length, HASHED_MAX); at++) {
    hash = Math.imul(hash ^ service.charCodeAt(at), 0x01000193);
  }
  hash ^= hash >>> 15;
  return (hash >>> 0) % SERVICE_COLOURS;
}

/** As a CSS value. */
export function serviceColour(service: string): string {
  return `var(--service-${colourNumber(service)})`;
}
