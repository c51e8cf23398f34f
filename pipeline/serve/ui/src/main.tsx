import { render } from "preact";
import { App } from "./App";
import { listenToKeys } from "./keys";
import { followLinks } from "./router";
import "./style.css";
import { applyTheme, storedTheme } from "./theme";

applyTheme(storedTheme());
listenToKeys();
followLinks();
render(<App />, document.getElementById("root")!);
