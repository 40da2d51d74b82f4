// Builds dist/: the module with its types, and client.js for pages. `make client` copies the latter to
// where the service serves it. Needs esbuild and TypeScript (`npm install`, or NODE_PATH).

const { execFileSync } = require("node:child_process");
const { rmSync } = require("node:fs");
const path = require("node:path");
const esbuild = require("esbuild");

const here = __dirname;
const out = path.resolve(here, process.argv[2] ?? "dist");
const { version } = require("./package.json");
const shared = { bundle: true, logLevel: "error", legalComments: "none" };

rmSync(out, { recursive: true, force: true });
execFileSync(process.execPath, [require.resolve("typescript/lib/tsc.js"), "-p", here, "--outDir", out], {
  stdio: "inherit",
});
esbuild.buildSync({
  ...shared,
  entryPoints: [path.join(here, "src/index.ts")],
  outfile: path.join(out, "index.js"),
  format: "esm",
  target: "es2020",
});
esbuild.buildSync({
  ...shared,
  entryPoints: [path.join(here, "src/page.ts")],
  outfile: path.join(out, "client.js"),
  format: "iife",
  target: "es2020",
  minify: true,
  banner: { js: `// recsys ${version}, Apache-2.0. Built from clients/js; not to be edited.` },
});
