/** Every state is in the URL: the path names the view, the query what it shows. */
import { useEffect, useState } from "preact/hooks";

export interface Place {
  readonly path: string;
  readonly params: URLSearchParams;
}
type Changes = Readonly<Record<string, string | null | undefined>>;

const MOVED = "placechange";

export function place(): Place {
  return { path: location.pathname, params: new URLSearchParams(location.search) };
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
  if (url !== location.pathname + location.search) {
    if (replace) history.replaceState(null, "", url);
    else history.pushState(null, "", url);
    dispatchEvent(new Event(MOVED));
  }
}

/** Stay on this view with some parameters changed; null, undefined and "" remove one. */
export function change(changes: Changes, replace = false): void {
  go(urlOf(location.pathname, changes, new URLSearchParams(location.search)), replace);
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

/** Clicks on links to views of ours change the place without loading the page again. */
export function followLinks(): void {
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
