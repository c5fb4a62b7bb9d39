/**
 * What commands say that they will take, beside the most memory that was resident in their processes, Bun included:
 * `bun bench/memory.ts [--shapes world,135M,0.5B,1B] [--ways full,lora,…,generate,run]`. Trainings are of 8 rows, 4 pairs a step, and
 * save their state after each; a run is one iteration in the embedded world.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type DType, type ModelConfig, parameterShapes } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { newModelConfigJson, openCheckpoint, saveCheckpoint } from "@tempora/models";
import { countParameters, generationMemory } from "@tempora/run";
import { createWorld } from "@tempora/world";
import { randomModel } from "../packages/engine/src/random-weights.ts";
import { say } from "./process.ts";
import { llama135M } from "./shapes.ts";

interface Shape {
  config: ModelConfig;
  dtype: DType;
  prompt: number;
  response: number;
}

const world = createWorld({ seed: 0 });
const like135M = (config: Partial<ModelConfig> & { layers: number }): ModelConfig => ({
  ...llama135M,
  ...config,
  windows: Array.from({ length: config.layers }, () => 0),
});
const usual = { dtype: "bf16", prompt: 128, response: 128 } as const;
const qwen = { family: "qwen2", vocabSize: 151_936, hiddenSize: 896, intermediateSize: 4864, qkvBias: true } as const;
const llama = { vocabSize: 128_256, hiddenSize: 2048, intermediateSize: 8192 } as const;
const shapes: Record<string, Shape> = {
  world: { config: world.modelConfig(), dtype: "f32", prompt: 32, response: 32 },
  "135M": { config: llama135M, ...usual },
  "0.5B": { config: like135M({ ...qwen, layers: 24, heads: 14, kvHeads: 2 }), ...usual },
  "1B": { config: like135M({ ...llama, layers: 16, heads: 32, kvHeads: 8 }), ...usual },
};

const rank = ["--lora-rank", "16"];
const nf4 = ["--quantize", "nf4"];
const checkpointing = "--gradient-checkpointing";
const trainings: Record<string, readonly string[]> = {
  full: [],
  "full-8bit-checkpointed": ["--optimizer", "adamw_8bit", checkpointing],
  lora: rank,
  "lora-checkpointed": [...rank, checkpointing],
  "lora-nf4": [...rank, ...nf4],
  "lora-nf4-checkpointed": [...rank, ...nf4, checkpointing],
};
/** States are saved after each step, as they are every five minutes of a training that lasts. */
const saving = ["--save-state-seconds", "0"];
const generations: Record<string, readonly string[]> = { generate: [], "generate-nf4": nf4 };
const generated = { rows: 64, newTokens: 128 };

/** A folder with random weights of the shape, made once. */
async function checkpointOf(name: string, { config, dtype }: Shape): Promise<string> {
  const folder = join(tmpdir(), `tempora-bench-${name}-${dtype}`);
  if (existsSync(join(folder, "config.json"))) return folder;
  say(`making random weights: ${folder}`);
  const raw = newModelConfigJson(config, {}, dtype);
  async function* tensors() {
    const source = randomModel(config, "f32", 1, 0.02);
    for await (const { name: tensor, shape, read } of source.tensors()) {
      yield { name: tensor, shape, dtype, bytes: inType(await read(), dtype) };
    }
  }
  await saveCheckpoint(folder, { config, raw, dtype, tensors: tensors(), files: tokenizerFiles(config.vocabSize) });
  return folder;
}

/** A tokenizer of as many entries as a real one: the world's words, and pairs of earlier entries. */
function tokenizerFiles(size: number): Record<string, string> {
  const files = world.tokenizerFiles();
  if (size === world.modelConfig().vocabSize) return files;
  // Bytes as GPT-2's tokenizer writes them, nearly: those of text stand for themselves.
  const entries = Array.from({ length: 256 }, (_, code) =>
    String.fromCodePoint(code > 32 && code < 127 ? code : 256 + code),
  );
  const merges: string[] = [];
  for (let k = 0; entries.length < size; k++) {
    const [left, right] = [entries[Math.floor(k / 256)] as string, entries[k % 256] as string];
    merges.push(`${left} ${right}`);
    entries.push(left + right);
  }
  const parts = JSON.parse(files["tokenizer.json"] as string) as Record<string, unknown>;
  const model = { type: "BPE", vocab: Object.fromEntries(entries.map((entry, id) => [entry, id])), merges };
  const config = { tokenizer_class: "PreTrainedTokenizerFast" };
  return {
    "tokenizer.json": JSON.stringify(
      { ...parts, added_tokens: [], pre_tokenizer: { type: "ByteLevel" }, model },
      null,
      2,
    ),
    "tokenizer_config.json": JSON.stringify(config),
  };
}

/** f32 numbers, cut to bf16 where that is wanted. */
function inType(bytes: Uint8Array, dtype: DType): Uint8Array {
  if (dtype === "f32") return bytes;
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  return new Uint8Array(words.filter((_, index) => index % 2 === 1).buffer);
}

function writeRows(file: string, { config, prompt, response }: Shape): void {
  const ids = (length: number, seed: number) =>
    Array.from({ length }, (_, k) => (seed * 7919 + k * 104_729) % Math.min(config.vocabSize, 300));
  const row = (k: number) => ({
    prompt_ids: ids(prompt, 3 * k),
    chosen_ids: ids(response, 3 * k + 1),
    rejected_ids: ids(response, 3 * k + 2),
  });
  writeFileSync(file, Array.from({ length: 8 }, (_, k) => `${JSON.stringify(row(k))}\n`).join(""));
}

interface Measured {
  /** Null where the command says nothing. */
  said: number | null;
  peak: number;
}

/** Runs a command in a process of its own. */
async function measure(folder: string, command: readonly string[]): Promise<Measured> {
  const peak = join(folder, "peak");
  const program = [process.execPath, join(import.meta.dirname, "peak-memory.ts"), peak, ...command];
  const child = Bun.spawn(program, { stdout: "ignore", stderr: "pipe" });
  const errors = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) {
    throw new TemporaError(`tempora ${command.join(" ")} failed:\n${errors}`, { remedy: "Look at the message above." });
  }
  // Of a run, for its trainings and for generation.
  const line = errors.split("\n").find((text) => text.startsWith("Memory: ")) ?? "";
  const amounts = [...line.matchAll(/(?:about|generation) ([\d.]+) (MiB|GiB)/g)];
  const said = Math.max(...amounts.map(([, digits, unit]) => Number(digits) * (unit === "GiB" ? 2 ** 30 : 2 ** 20)));
  return { said: amounts.length === 0 ? null : said, peak: Number(readFileSync(peak, "utf8")) };
}

async function training(name: string, shape: Shape, flags: readonly string[], folder: string): Promise<Measured> {
  const [model, rows] = [await checkpointOf(name, shape), join(folder, "rows.jsonl")];
  writeRows(rows, shape);
  const given = ["--model", model, "--data", rows, "--out", join(folder, "out"), "--batch-pairs", "4", ...saving];
  return measure(folder, ["dpo", ...given, "--device", "cpu", ...flags]);
}

async function generation(name: string, shape: Shape, flags: readonly string[], folder: string): Promise<Measured> {
  const [model, rows] = [await checkpointOf(name, shape), join(folder, "rows.jsonl")];
  writeRows(rows, shape);
  const newTokens = Math.min(generated.newTokens, shape.config.maxPositions - shape.prompt);
  const cacheTokens = 8 * shape.prompt + generated.rows * newTokens;
  const { config, dtype } = await openCheckpoint(model);
  const quantize = flags.includes("nf4") ? ("nf4" as const) : undefined;
  const said = generationMemory(
    { config, dtype, quantize },
    { cacheTokens, rows: generated.rows, device: "cpu" },
  ).total;
  const sizes = ["--n", "8", "--max-new-tokens", `${newTokens}`, "--max-rows", `${generated.rows}`];
  const given = ["--model", model, "--data", rows, "--out", join(folder, "answers.jsonl"), ...sizes];
  return { ...(await measure(folder, ["generate", ...given, "--device", "cpu", ...flags])), said };
}

/** One iteration in the embedded world, which trains its M0 first. */
async function worldRun(folder: string): Promise<Measured> {
  const small = ["--strategy", "temporal", "--iterations", "1"];
  return measure(folder, ["train", "--runs", join(folder, "runs"), "--no-page", "--device", "cpu", ...small]);
}

function chosen(text: string | undefined, known: readonly string[]): string[] {
  if (text === undefined) return [...known];
  return text.split(",").map((name) => {
    if (known.includes(name)) return name;
    throw new TemporaError(`There is no "${name}"`, { remedy: `Choose among ${known.join(", ")}.` });
  });
}

const { values } = parseArgs({ options: { shapes: { type: "string" }, ways: { type: "string" } } });
const ways = chosen(values.ways, [...Object.keys(trainings), ...Object.keys(generations), "run"]);
for (const name of chosen(values.shapes, Object.keys(shapes))) {
  const shape = shapes[name] as Shape;
  for (const way of ways) {
    if (way === "run" && name !== "world") continue;
    const folder = await mkdtemp(join(tmpdir(), "tempora-bench-"));
    try {
      const flags = trainings[way] ?? generations[way] ?? [];
      const own = way in trainings ? training : generation;
      const { said, peak } = await (way === "run" ? worldRun(folder) : own(name, shape, flags, folder));
      const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
      const off = said === null ? "" : ` / ${mib(said)} said (${(100 * (said / peak - 1)).toFixed(1)} %)`;
      console.log(`${name}, ${way}: ${mib(peak)} MiB${off}`);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}
say(
  `parameters: ${Object.entries(shapes)
    .map(([name, { config }]) => `${name} ${countParameters(parameterShapes(config))}`)
    .join(", ")}`,
);
