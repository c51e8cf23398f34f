// Bundles src/ into dist/: one script, one style sheet, named by their content, and the page that loads them.
import { build, formatMessages } from "esbuild-wasm";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const COMPRESSED_BYTES_MAX = 300_000;
const made = "dist.new"; // moved into place at the end: a querier never sees half a bundle

await rm(made, { recursive: true, force: true });
await mkdir(made);
const result = await build({
  entryPoints: { page: "src/main.tsx" },
  outdir: `${made}/assets`,
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  metafile: true,
  logLevel: "silent", // written by its process, it would end that where stderr is a file
}).catch(async (failure) => {
  console.error((await formatMessages(failure.errors ?? [], { kind: "error" })).join("") || failure);
  process.exit(1);
});
const names = Object.keys(result.metafile.outputs).map((path) => path.slice(made.length + 1));
const script = names.find((name) => name.endsWith(".js"));
const style = names.find((name) => name.endsWith(".css"));
const page = (await readFile("src/page.html", "utf8")).replace("{{script}}", `/${script}`).replace("{{style}}", `/${style}`);
await writeFile(`${made}/index.html`, page);

let bytes = gzipSync(page).length;
for (const name of await readdir(`${made}/assets`)) {
  bytes += gzipSync(await readFile(`${made}/assets/${name}`), { level: 4 }).length;
}
if (bytes > COMPRESSED_BYTES_MAX) {
  throw new Error(`the page is ${bytes} bytes compressed, more than ${COMPRESSED_BYTES_MAX}`);
}
await rm("dist", { recursive: true, force: true });
await rename(made, "dist");
console.error(`The page: ${Math.round(bytes / 1000)} kB compressed`);
