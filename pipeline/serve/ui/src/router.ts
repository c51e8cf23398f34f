/** Every state is in the URL: the path names the view, the query what it shows. */
import { useEffect, useState } from "preact/hooks";

export interface Place {
  readonly path: string;
  readonly params: URLSearchParams;
}
type Changes = Readonly<Record<string, string | null | undefined>>;

const MOVED = "placechange";
const WRITE_EVERY_MS = 150; // browsers take 200 changes of the history in 10 s, and drop further ones
let ahead: string | null = null; // a URL that the history gets soon
let writtenMs = 0;
let timer = 0;

function current(): string {
  return ahead ?? location.pathname + location.search;
}

export function place(): Place {
  const [path = "", query = ""] = current().split("?", 2);
  return { path, params: new URLSearchParams(query) };
}

function write(): void {
  clearTimeout(timer);
  timer = 0;
  if (ahead === null) return;
  history.replaceState(null, "", ahead);
  ahead = null;
  writtenMs = performance.now();
}

/** The place of now; renders again when it changes. */
export function usePlace(): Place {
  const [here, setHere] = useState(place);
  useEffect(() => {
    const moved = () => setHere(place());
    addEventListener("popstate", moved);
    addEventListener(MOVED, moved);
    moved();
    return () => {
      removeEventListener("popstate", moved);
      removeEventListener(MOVED, moved);
    };
  }, []);
  return here;
}

/** Go to a URL of this page. replace: the back button skips where we were. */
export function go(url: string, replace = false): void {
  if (url === current()) return;
  if (replace) {
    ahead = url;
    if (performance.now() - writtenMs >= WRITE_EVERY_MS) write();
    else timer ||= setTimeout(write, WRITE_EVERY_MS);
  } else {
    write();
    history.pushState(null, "", url);
  }
  dispatchEvent(new Event(MOVED));
}

/** Stay on this view with some parameters changed; null, undefined and "" remove one. */
export function change(changes: Changes, replace = false): void {
  const { path, params } = place();
  go(urlOf(path, changes, params), replace);
}

/** A URL from a path and parameters, on top of others. */
export function urlOf(path: string, changes: Changes, onto?: URLSearchParams): string {
  const params = new URLSearchParams(onto);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") params.delete(name);
    else params.set(name, value);
  }
  const query = params.toString();
  return query ? `${path}?${query}` : path;
}

/** How many rows of a list are shown: `rows=`; as many as at first where that is no larger number. */
export function rowsOf(params: URLSearchParams, atFirst: number): number {
  const rows = Number(params.get("rows"));
  return Number.isInteger(rows) && rows > atFirst ? rows : atFirst;
}

/** Clicks on links to views of ours, and the browser's buttons, change the place without loading the page again. */
export function followLinks(): void {
  addEventListener("popstate", () => (ahead = null));
  addEventListener("pagehide", write);
  const clicked = (event: MouseEvent) => {
    const link = (event.target as Element | null)?.closest?.("a");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
    if (link.origin !== location.origin || !isView(link.pathname)) return;
    event.preventDefault();
    go(link.pathname + link.search);
    scrollTo(0, 0);
  };
  document.addEventListener("click", clicked);
}

function isView(path: string): boolean {
  return /^\/($|trace\/|services$|compare$|live$|system$)/.test(path);
}
