/** What reads, with good inputs of it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { Engine, type Forest } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { openAdapter, openCheckpoint, readModelConfig, readSafetensors, writeSafetensors } from "@tempora/models";
import { parseScore } from "@tempora/preferences";
import { preferenceRow, promptRow, readRows, Tokenizer } from "@tempora/text";
import { parquetWriteBuffer } from "hyparquet-writer";
import { loadChatTemplate } from "../../packages/text/src/chat-template.ts";
import { readParquet } from "../../packages/text/src/parquet.ts";
import { readGroups } from "../../packages/text/src/parquet-groups.ts";
import { allow, isExhausted } from "./instrument.ts";
import { below, pick, random, seedInput } from "./mutate.ts";
import { memoryFolder } from "./watch.ts";

seedInput(0, 0);
const scratch = mkdtempSync(join(memoryFolder, "tempora-fuzz-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
const oracles = join(import.meta.dirname, "..", "..", "test", "oracles");
const oracle = (...parts: string[]) => readFileSync(join(oracles, ...parts));

export interface Target {
  seeds: Uint8Array[];
  read(bytes: Uint8Array): Promise<unknown> | unknown;
  /** How many functions and branches one input may come to, where what reads has no bound of its own; default: any number. */
  steps?: number;
}

/** Through a file of that name. */
function file(name: string, read: (path: string) => Promise<unknown> | unknown): Target["read"] {
  const path = join(scratch, name);
  return (bytes) => {
    writeFileSync(path, bytes);
    return read(path);
  };
}

const rowsOf = (name: string) =>
  file(name, async (path) => {
    for await (const row of readRows(path)) {
      for (const take of [promptRow, preferenceRow]) {
        try {
          take(row, path);
        } catch (error) {
          if (!(error instanceof TemporaError)) throw error;
        }
      }
    }
  });

const rows = [
  '{"prompt":"a","chosen":"b","rejected":"c"}\n{"prompt":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]}\n{"prompt_ids":[1,2],"chosen_ids":[3],"rejected_ids":[4]}\n',
];
const texts = (...list: string[]) => list.map((text) => Buffer.from(text));
const policy = join(oracles, "llama", "policy");
const tokenizerSeeds = [oracle("llama", "policy", "tokenizer.json")];

/** A whole file of two tensors, so that most changes hit what decides its meaning. */
async function smallTensors(): Promise<Uint8Array> {
  const path = join(scratch, "seed.safetensors");
  const tensor = (name: string, count: number) => ({
    name,
    dtype: "f32" as const,
    shape: [count],
    bytes: new Uint8Array(4 * count),
  });
  await writeSafetensors(path, [tensor("a.weight", 4), tensor("b.bias", 3)]);
  return readFileSync(path);
}

const conversation = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hello" },
  { role: "assistant", content: "Hi" },
  { role: "user", content: "Bye" },
];

let engines: Promise<[Engine, Engine]> | undefined;

/** A working engine and one that has ended, when they are first asked for. */
async function loadEngines(): Promise<[Engine, Engine]> {
  const load = async () => Engine.load(await openCheckpoint(policy), { device: "cpu", threads: 1 });
  const both: [Engine, Engine] = [await load(), await load()];
  both[1].dispose();
  return both;
}

/** Any value that JavaScript can pass. */
function hostile(): unknown {
  return pick<unknown>([
    undefined,
    null,
    -1,
    1e9,
    Number.NaN,
    "x",
    {},
    [],
    new Int32Array(below(4)),
    new Float32Array(3),
    2 ** 53,
    Infinity,
    () => 1,
    Symbol("x"),
    1n,
  ]);
}

async function callEngine(bytes: Uint8Array): Promise<unknown> {
  engines ??= loadEngines();
  const [engine, ended] = await engines;
  const some = () =>
    random() < 0.2 ? hostile() : Int32Array.from(bytes.subarray(below(8), 8 + below(24)), (byte) => (byte % 64) - 1);
  const forest = {
    tokens: some(),
    nodeStart: some(),
    nodeParent: some(),
    nodeScored: random() < 0.3 ? hostile() : new Uint8Array(bytes.subarray(0, below(6))),
  } as unknown as Forest;
  const value = hostile() as never;
  const target = random() < 0.2 ? ended : engine;
  switch (below(8)) {
    case 0:
      return target.logProbs(forest, { topLogProbs: value } as never);
    case 1:
      return target.supervisedStep(forest, { weight: value });
    case 2:
      return target.preferenceStep(
        forest,
        [{ chosen: value, rejected: value, referenceChosen: value, referenceRejected: value }],
        { terms: [{ type: "sigmoid", weight: 1 }], beta: value },
      );
    case 3:
      return target.accumulate(forest, value);
    case 4:
      return target.optimizerStep({ learningRate: value, maxGradNorm: value });
    case 5:
      return target.hiddenStates(forest, some() as never);
    case 6: {
      for await (const _ of target.generate([{ ids: some() as never, adapter: value }], {
        maxNewTokens: pick([2, value]),
        n: pick([1, value]),
        seed: value,
      }));
      return;
    }
    default:
      return target.adapters.add(value, { rank: value, alpha: value, targets: value });
  }
}

/** Small files of Parquet, of each compression that Node can write, nulls, lists and numbers among them. */
function parquetSeeds(): Uint8Array[] {
  const schemes = { GZIP: gzipSync, BROTLI: brotliCompressSync, ZSTD: zstdCompressSync };
  const columnData = [
    { name: "prompt", data: ["a", "bb", "ccc", null], type: "STRING" as const },
    { name: "n", data: [1, 2, 3, 1], type: "INT32" as const },
  ];
  const compressors = Object.fromEntries(
    Object.entries(schemes).map(([name, scheme]) => [name, (bytes: Uint8Array) => new Uint8Array(scheme(bytes))]),
  );
  const codecs = ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD"] as const;
  const words = Array.from({ length: 20 }, (_, k) => `word ${k % 3}`);
  const others = [
    { name: "text", data: words, type: "STRING" as const },
    { name: "x", data: words.map((_, k) => k / 3), type: "DOUBLE" as const },
    { name: "b", data: words.map((_, k) => k % 2 === 0), type: "BOOLEAN" as const },
    { name: "big", data: words.map((_, k) => BigInt(k) ** 11n), type: "INT64" as const },
    { name: "j", data: words.map((_, k) => ({ k: [k] })), type: "JSON" as const },
  ];
  return [
    ...codecs.map((codec) => parquetWriteBuffer({ columnData, codec, compressors })),
    parquetWriteBuffer({ columnData: others, rowGroupSize: 8 }),
  ].map((buffer) => new Uint8Array(buffer));
}

let endlessFiles = 0;

/**
 * By what the thread of a Parquet file runs, without the thread. Its errors are all reported as damage; what goes past the steps is what the thread
 * is ended for, which is tried for some.
 */
async function readDamagedParquet(path: string): Promise<void> {
  try {
    for await (const rows of readGroups(path)) rows.length;
  } catch (error) {
    if (isExhausted() && ++endlessFiles <= 3) {
      allow(Infinity);
      await Array.fromAsync(readParquet(path, 500));
    }
    throw new TemporaError(error instanceof Error ? error.message : String(error), { remedy: "none", cause: error });
  }
}

writeFileSync(
  join(scratch, "adapter_model.safetensors"),
  oracle("llama", "lora", "adapter", "adapter_model.safetensors"),
);

export const targets: Record<string, Target> = {
  safetensors: {
    seeds: [await smallTensors()],
    read: file("x.safetensors", async (path) => {
      for (const tensor of (await readSafetensors(path)).tensors.values()) await tensor.read();
    }),
  },
  gguf: {
    seeds: ["llama-q4_0.gguf", "qwen3-q8_0.gguf"].map((name) => oracle("gguf", name)),
    read: file("x.gguf", async (path) => {
      for await (const tensor of (await openCheckpoint(path)).tensors()) {
        await tensor.read();
        break;
      }
    }),
  },
  config: {
    seeds: ["llama3", "qwen2", "qwen3", "mistral"].map((family) => oracle(family, "policy", "config.json")),
    read: file("config.json", () => readModelConfig(scratch)),
  },
  adapter: {
    seeds: [oracle("llama", "lora", "adapter", "adapter_config.json")],
    read: file("adapter_config.json", () => openAdapter(scratch)),
  },
  tokenizer: {
    seeds: tokenizerSeeds,
    read: file("tokenizer.json", async () => (await Tokenizer.load(scratch)).encode("Hello, world 12 <|im_start|>é")),
  },
  template: {
    seeds: ["llama", "llama3", "mistral", "qwen2", "qwen3"].map((family) =>
      oracle(family, "policy", "chat_template.jinja"),
    ),
    read: async (bytes) => {
      const template = await loadChatTemplate("x", {}, async (name) => (name === "chat_template.jinja" ? bytes : null));
      const variables = { bos_token: "<s>", eos_token: "</s>", tools: [{ type: "function", function: { name: "f" } }] };
      return template?.render(conversation, true, variables, new Date(0));
    },
  },
  jsonl: { seeds: texts(...rows), read: rowsOf("x.jsonl") },
  json: {
    seeds: texts(
      '[{"prompt":"a","chosen":"b","rejected":"c"},{"instruction":"x","output":"y"}]',
      '{"data":[{"prompt":"a"}]}',
    ),
    read: rowsOf("x.json"),
  },
  csv: {
    seeds: texts('prompt,chosen,rejected\n"a ""q"" b",c,d\nx,"multi\nline",z\n', "instruction,input,output\na,,b\n"),
    read: rowsOf("x.csv"),
  },
  parquet: { seeds: parquetSeeds(), read: file("x.parquet", readDamagedParquet), steps: 300_000 },
  score: {
    seeds: texts(
      "Score: 4 out of 5",
      "The answer is **3.5**/5.",
      "I rate it 10\n\nscore = 2",
      "<score>0</score>",
      "five",
    ),
    read: (bytes) => parseScore(new TextDecoder().decode(bytes), { max: pick([5, 10, 1, 100]) }),
  },
  engine: { seeds: texts("0123456789abcdefghijklmnopqrstuvwxyz"), read: callEngine },
};
