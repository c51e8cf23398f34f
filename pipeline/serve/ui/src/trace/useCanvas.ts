/** A canvas as wide as what it stands in, to be drawn again when that or the colours change. */
import { type RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { onThemeChange } from "../theme";

export interface DrawnCanvas {
  readonly canvas: RefObject<HTMLCanvasElement>;
  /** In CSS pixels; 0 before it is known. */
  readonly width: number;
  /** Another number for other colours. */
  readonly themes: number;
}

export function useCanvas(): DrawnCanvas {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [themes, setThemes] = useState(0);
  useEffect(() => onThemeChange(() => setThemes((before) => before + 1)), []);
  useEffect(() => {
    const watched = new ResizeObserver(([entry]) => setWidth(Math.round(entry!.contentRect.width)));
    watched.observe(canvas.current!.parentElement!);
    return () => watched.disconnect();
  }, []);
  return { canvas, width, themes };
}
