/** The frame around every view: navigation, time range, theme, keys, who asks. */
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { REFUSED } from "./api/client";
import { ComparePage } from "./compare/ComparePage";
import { ExplorePage } from "./explore/ExplorePage";
import { useKeys } from "./keys";
import { LivePage } from "./live/LivePage";
import { AccessDialog } from "./parts/AccessDialog";
import { KeysDialog } from "./parts/KeysDialog";
import { ThemeButton } from "./parts/ThemeButton";
import { TraceIdBox } from "./parts/TraceIdBox";
import { go, urlOf, usePlace } from "./router";
import { ServicesPage } from "./services/ServicesPage";
import { SystemPage } from "./system/SystemPage";
import { DifferencePage } from "./trace/DifferencePage";
import { TracePage } from "./trace/TracePage";

export interface ViewProps {
  readonly params: URLSearchParams;
}

interface View {
  readonly path: string;
  readonly name: string;
  readonly key: string;
  readonly shows: ComponentType<ViewProps>;
}

const VIEWS: readonly View[] = [
  { path: "/", name: "Explore", key: "e", shows: ExplorePage },
  { path: "/services", name: "Services", key: "s", shows: ServicesPage },
  { path: "/compare", name: "Compare", key: "c", shows: ComparePage },
  { path: "/live", name: "Live", key: "l", shows: LivePage },
  { path: "/system", name: "System", key: "y", shows: SystemPage },
];
const CARRIED = ["q", "since", "from", "to"]; // from view to view

export function App() {
  const { path, params } = usePlace();
  const [dialog, setDialog] = useState<"keys" | "access" | null>(null);
  const view = VIEWS.find((one) => one.path === path);
  const pair = /^\/trace\/([^/]+)\/against\/([^/]+)$/.exec(path);
  const traceId = /^\/trace\/([^/]+)$/.exec(path)?.[1];

  useEffect(() => {
    const refused = () => setDialog("access");
    addEventListener(REFUSED, refused);
    return () => removeEventListener(REFUSED, refused);
  }, []);
  useEffect(() => {
    document.title = `${view?.name ?? (traceId ? `Trace ${traceId.slice(0, 8)}` : pair ? "Two traces" : "Not found")} - spanstream`;
  }, [view, path]);
  useKeys("Everywhere", [
    { keys: "?", does: "show or hide these keys", overDialogs: true, run: () => setDialog((open) => (open === "keys" ? null : "keys")) },
    { keys: "Escape", does: "close what is open, leave a field", always: true, run: () => leave(() => setDialog(null)) },
    ...VIEWS.map((one) => ({ keys: `g ${one.key}`, does: `go to ${one.name}`, run: () => go(carried(one.path, params)) })),
  ]);

  return (
    <>
      <a class="skip" href="#main">
        To the content
      </a>
      <header class="top">
        <a class="brand" href="/">
          spanstream
        </a>
        <nav aria-label="Views">
          {VIEWS.map((one) => (
            <a key={one.path} href={carried(one.path, params)} aria-current={one === view ? "page" : undefined}>
              {one.name}
            </a>
          ))}
        </nav>
        <div class="top-end">
          <TraceIdBox />
          <button type="button" class="quiet" onClick={() => setDialog("access")}>
            Access
          </button>
          <ThemeButton />
          <button type="button" class="quiet" aria-label="Keyboard" title="Keyboard (?)" onClick={() => setDialog("keys")}>
            ?
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {view ? (
          <view.shows params={params} />
        ) : traceId ? (
          <TracePage traceId={decodeURIComponent(traceId)} params={params} />
        ) : pair ? (
          <DifferencePage a={decodeURIComponent(pair[1]!)} b={decodeURIComponent(pair[2]!)} params={params} />
        ) : (
          <NoSuchView />
        )}
      </main>
      {dialog === "keys" && <KeysDialog close={() => setDialog(null)} />}
      {dialog === "access" && <AccessDialog close={() => setDialog(null)} />}
    </>
  );
}

function carried(path: string, params: URLSearchParams): string {
  return urlOf(path, Object.fromEntries(CARRIED.map((name) => [name, params.get(name)])));
}

function leave(close: () => void): void {
  (document.activeElement as HTMLElement | null)?.blur();
  close();
}

function NoSuchView() {
  return (
    <div class="page">
      <h1>There is no such view</h1>
      <p>
        The newest traces are at <a href="/">Explore</a>.
      </p>
    </div>
  );
}
