/** What each target reads with: of these files it is counted which functions and branches were come to, and what comes to a new one is kept. */
import { realpathSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..", "..");
const library = (name: string, files: string) =>
  `node_modules/.bun/${name.replace("/", "+")}@*/node_modules/${name}/${files}`;
const text = (...names: string[]) => names.map((name) => `packages/text/src/${name}.ts`);
const models = (...names: string[]) => names.map((name) => `packages/models/src/${name}.ts`);
const rows = ["datasets", "dataset-files", "rows"];

/** By the target's name: files below the repository, with wildcards. */
export const sources: Readonly<Record<string, readonly string[]>> = {
  safetensors: models("safetensors", "tensor-file"),
  gguf: models(
    "checkpoint",
    ...["open", "file", "header-lengths", "metadata", "config", "names", "blocks"].map((name) => `gguf/${name}`),
  ),
  config: models("config", "config-reader", "rope", "json-file"),
  adapter: models("peft/folder", "peft/config", "json-file"),
  tokenizer: text("tokenizer", "byte-level", "end-tokens"),
  template: [...text("chat-template", "jinja-repairs", "untrusted"), library("@huggingface/jinja", "dist/index.js")],
  jsonl: text(...rows),
  json: text(...rows),
  csv: text(...rows, "csv"),
  parquet: [
    ...text("parquet-groups"),
    ...[
      "assemble",
      "column",
      "convert",
      "datapage",
      "delta",
      "encoding",
      "metadata",
      "plain",
      "plan",
      "read",
      "rowgroup",
    ].map((name) => library("hyparquet", `src/${name}.js`)),
    ...["scan", "schema", "snappy", "thrift", "utils"].map((name) => library("hyparquet", `src/${name}.js`)),
    library("hyparquet-compressors", "src/*.js"),
  ],
  score: ["packages/preferences/src/parse-score.ts"],
  engine: [
    "adapters",
    "check",
    "engine",
    "forest",
    "generate",
    "generation-batch",
    "losses",
    "native",
    "optimizer-options",
  ].map((name) => `packages/engine/src/${name}.ts`),
};

/** The files behind such patterns, by their real paths. */
export function filesOf(patterns: readonly string[]): string[] {
  return patterns.flatMap((pattern) => {
    const files = [...new Bun.Glob(pattern).scanSync({ cwd: root, dot: true })].sort();
    if (files.length === 0) throw new Error(`no file is named ${pattern}`);
    return files.map((file) => realpathSync(join(root, file)));
  });
}
