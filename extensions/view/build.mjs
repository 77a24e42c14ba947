// Bundles src/widget.js into the one file that the notebook's widget loads, with a stamp that a test checks without node.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../../flowkit/notebook/static");

await build({
  entryPoints: [join(here, "src/widget.js")],
  outfile: join(target, "widget.js"),
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
});

const hash = createHash("sha256");
for (const name of readdirSync(join(here, "src")).sort()) {
  hash.update(name).update("\0").update(readFileSync(join(here, "src", name))).update("\0");
}
writeFileSync(join(target, "widget.js.stamp"), hash.digest("hex") + "\n");
