/** How long ago something was, as time goes on. */
import { useEffect, useState } from "preact/hooks";
import { agoText } from "../format";

const EVERY_MS = 1000;

export function Ago({ unixMs }: { unixMs: number }) {
  const [nowMs, setNowMs] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && setNowMs(Date.now()), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return <>{agoText(unixMs, Math.max(nowMs, unixMs))}</>;
}
