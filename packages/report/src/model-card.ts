import { readFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { isObject } from "@tempora/errors";
import type { RunResult } from "@tempora/run";
import { readResult } from "./run-folder.ts";
import { summaryTable } from "./summary-table.ts";

/** The run that a model lies in. */
export interface ModelOrigin {
  result: RunResult;
  /** "M2", or "self-rewarding/M1" of a baseline. */
  model: string;
}

/** The run whose folder RUN/models/M1 or RUN/<strategy>/models/M1 belongs to, or null. */
export async function originOf(folder: string): Promise<ModelOrigin | null> {
  const path = resolve(folder);
  if (basename(dirname(path)) !== "models") return null;
  for (const run of [resolve(path, "../.."), resolve(path, "../../..")]) {
    const file = join(run, "run.json");
    if (!(await exists(file))) continue;
    const strategy = relative(run, resolve(path, "../..")).replaceAll("\\", "/");
    const model = strategy === "" ? basename(path) : `${strategy}/${basename(path)}`;
    return { result: await readResult(file), model };
  }
  return null;
}

async function exists(file: string): Promise<boolean> {
  return readFile(file).then(
    () => true,
    () => false,
  );
}

export interface CardOptions {
  /** Of the exported model. */
  name: string;
  /** "Hugging Face folder in bf16", "GGUF, Q8_0". */
  format: string;
  origin: ModelOrigin | null;
}

/** README.md of a model: front matter that the hub reads; the settings and figures of the run that made it. */
export function modelCard({ name, format, origin }: CardOptions): string {
  const base = origin === null ? null : baseModel(origin.result.settings.model);
  const front = [
    "---",
    ...(base?.hub === true ? [`base_model: ${JSON.stringify(base.name)}`] : []),
    ...(format.includes("GGUF") ? [] : ["library_name: transformers"]),
    "pipeline_tag: text-generation",
    `tags: [${["tempora", ...(format.includes("GGUF") ? ["gguf"] : []), ...tagsOf(origin)].join(", ")}]`,
    "---",
  ];
  return `${[...front, "", `# ${name}`, "", ...body(format, origin, base)].join("\n")}\n`;
}

function tagsOf(origin: ModelOrigin | null): string[] {
  if (origin === null) return [];
  return [
    "dpo",
    "self-rewarding",
    ...(origin.result.settings.strategy === "temporal" ? ["temporal-self-rewarding"] : []),
  ];
}

/** What settings.model names: a model on the hub (org/name[@revision]), or a path, of which the last part is told. */
function baseModel(model: unknown): { name: string; hub: boolean } | null {
  if (typeof model !== "string") return null;
  const hub = /^([\w.-]+\/[\w.-]+?)(@[\w.-]+)?$/.exec(model);
  if (hub !== null && !model.endsWith(".gguf") && !model.startsWith(".")) return { name: hub[1] as string, hub: true };
  return { name: basename(model), hub: false };
}

function body(format: string, origin: ModelOrigin | null, base: { name: string } | null): string[] {
  if (origin === null) return [`A language model, exported by Tempora (${format}).`];
  const { result, model } = origin;
  const start = base === null ? "a small model that the run itself trained" : base.name;
  const judged = result.graded ? "a program that knows the true score" : "a judge";
  return [
    `${model} of a run of [temporal self-rewarding](https://arxiv.org/abs/2508.06026) by Tempora, which began with ${start}: ` +
      `the model answers prompts, its answers are judged, and it is trained on the better against the worse (${format}).`,
    "",
    `## Figures`,
    "",
    `On held-out prompts, measured by ${judged}; means with 95 % intervals.`,
    "",
    "```text",
    summaryTable(result),
    "```",
    "",
    "## Settings",
    "",
    "| setting | value |",
    "|---|---|",
    ...settingRows(result.settings).map(([key, value]) => `| ${key} | ${value.replaceAll("|", "\\|")} |`),
    "",
    `Code ${result.codeVersion.slice(0, 12)} · computed in ${result.device.dtype} on ${result.device.name}`,
  ];
}

/** Settings as dotted keys; the judge's words and paths of files are left to run.json. */
function settingRows(settings: Record<string, unknown>, prefix = ""): [string, string][] {
  return Object.entries(settings).flatMap(([key, value]): [string, string][] => {
    const name = `${prefix}${key}`;
    if (isObject(value) && name !== "judge.template") return settingRows(value, `${name}.`);
    if (value === null || name === "judge.template" || (typeof value === "string" && /[/\\\n]/.test(value))) return [];
    return [[name, typeof value === "string" ? value : JSON.stringify(value)]];
  });
}
