import { useState } from "preact/hooks";
import { applyTheme, storedTheme, THEMES, type Theme } from "../theme";

const NAMES: Record<Theme, string> = { system: "◐ Auto", light: "○ Light", dark: "● Dark" };

/** Goes from system to light to dark. */
export function ThemeButton() {
  const [theme, setTheme] = useState(storedTheme);
  const next = () => {
    const chosen = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!;
    applyTheme(chosen);
    setTheme(chosen);
  };
  return (
    <button type="button" class="quiet" title="Colours: as the system, light, dark" onClick={next}>
      {NAMES[theme]}
    </button>
  );
}
