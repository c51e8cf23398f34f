// Runs test/*.test.ts under Node: what the page decides without a browser.
import { build } from "esbuild-wasm";
import { mkdir, readdir } from "node:fs/promises";
import { run } from "node:test";
import { spec } from "node:test/reporters";

const made = "node_modules/.tests";
await mkdir(made, { recursive: true });
const files = (await readdir("test")).filter((name) => name.endsWith(".test.ts"));
await build({
  entryPoints: files.map((name) => `test/${name}`),
  outdir: made,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  logLevel: "warning",
});
let failed = 0;
const outcome = run({ files: files.map((name) => `${made}/${name.replace(/\.ts$/, ".mjs")}`), isolation: "none" });
outcome.on("test:fail", () => failed++);
outcome.on("end", () => (process.exitCode = failed ? 1 : 0));
const report = outcome.compose(spec());
let text = "";
for await (const part of report) text += part;
if (failed) process.stderr.write(text);
