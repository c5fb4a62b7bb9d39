/**
 * Hostile input for everything that reads: `bun run fuzz [--inputs 500000] [--only NAME] [--seed 7]`. Each parser gets so many inputs, made
 * by mutation from good ones; it may return, or fail with a TemporaError. Anything else is a finding: another error, a crash, more than a second, or memory that
 * stays. A finding prints the file that shows it. Parquet, which
 * is read on a thread of its own that is ended where it does not end, gets a hundredth of the inputs. Prints counts and, last, "N passed, N failed".
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Engine, type Forest } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { openAdapter, openCheckpoint, readModelConfig, readSafetensors, writeSafetensors } from "@tempora/models";
import { parseScore } from "@tempora/preferences";
import { preferenceRow, promptRow, readRows, Tokenizer } from "@tempora/text";
import { parquetWriteBuffer } from "hyparquet-writer";
import { readParquet } from "../packages/text/src/parquet.ts";

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "500000" },
    only: { type: "string" },
    seed: { type: "string", default: "1" },
  },
});
const inputs = Number(values.inputs);
let state = Number(values.seed);
function random(): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (count: number) => Math.floor(random() * count);
const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;

/** In memory where the system has a place for it: half a million files are no work for a disk. */
const scratch = mkdtempSync(join(readdirSync("/dev").includes("shm") ? "/dev/shm" : tmpdir(), "tempora-fuzz-"));
const oracles = join(import.meta.dirname, "..", "test", "oracles");
const oracle = (...parts: string[]) => readFileSync(join(oracles, ...parts));

const numbers = [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];
const words = [
  "null",
  "{}",
  "[]",
  "-1",
  "1e999",
  "0",
  '""',
  "true",
  "\\u0000",
  "{{",
  "%}",
  "NaN",
  "9007199254740993",
  "\ud800",
  "\n",
  ",",
  '"',
  "[[[[",
  "}}",
].map((word) => Buffer.from(word));

/** One to eight changes: bits, bytes, numbers of four and eight bytes, pieces removed, doubled, moved from another seed, words put in. */
function mutated(seeds: readonly Uint8Array[]): Uint8Array {
  let bytes = Buffer.from(pick(seeds));
  for (let left = 1 + below(8); left > 0; left--) {
    const at = below(bytes.length + 1);
    const to = Math.min(bytes.length, at + 1 + below(pick([4, 32, 512])));
    switch (below(9)) {
      case 0:
        if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << below(8));
        break;
      case 1:
        if (at < bytes.length) bytes[at] = below(256);
        break;
      case 2:
        if (at + 4 <= bytes.length) bytes.writeUInt32LE(pick(numbers), at);
        break;
      case 3:
        if (at + 8 <= bytes.length) bytes.writeBigUInt64LE(BigInt(pick(numbers)) << BigInt(pick([0, 16, 31])), at);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)]);
        break;
      case 5:
        bytes = Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)]);
        break;
      case 6: {
        const other = pick(seeds);
        const from = below(other.length);
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(from, from + below(64)), bytes.subarray(at)]);
        break;
      }
      case 7:
        bytes = Buffer.concat([bytes.subarray(0, at), pick(words), bytes.subarray(to)]);
        break;
      case 8:
        bytes = bytes.subarray(0, at);
        break;
    }
  }
  return bytes.subarray(0, 1 << 16);
}

interface Target {
  seeds: Uint8Array[];
  read(bytes: Uint8Array): Promise<unknown> | unknown;
  /** Of the inputs asked for; default: all. */
  share?: number;
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

const engine = await Engine.load(await openCheckpoint(policy), { device: "cpu", threads: 1 });
const ended = await Engine.load(await openCheckpoint(policy), { device: "cpu", threads: 1 });
ended.dispose();

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

writeFileSync(
  join(scratch, "adapter_model.safetensors"),
  oracle("llama", "lora", "adapter", "adapter_model.safetensors"),
);

const targets: Record<string, Target> = {
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
  parquet: {
    seeds: [
      new Uint8Array(
        parquetWriteBuffer({
          columnData: [
            { name: "prompt", data: ["a", "bb", "ccc"], type: "STRING" },
            { name: "n", data: [1, 2, 3], type: "INT32" },
          ],
        }),
      ),
    ],
    read: file("x.parquet", (path) => Array.fromAsync(readParquet(path, 300))),
    share: 0.01,
  },
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

let found = 0;
let passed = 0;
for (const [name, { seeds, read, share = 1 }] of Object.entries(targets)) {
  if (values.only !== undefined && values.only !== name) continue;
  const begun = performance.now();
  const count = Math.ceil(share * inputs);
  let taken = 0;
  let slowest = 0;
  let memory = 0;
  const kinds = new Map<string, number>();
  for (let index = 0; index < count; index++) {
    const bytes = mutated(seeds);
    const at = performance.now();
    let wrong: string | null = null;
    try {
      await read(bytes);
      taken++;
    } catch (error) {
      if (!(error instanceof TemporaError))
        wrong = error instanceof Error ? `${error.name}: ${error.message.split("\n")[0]}` : String(error);
    }
    const took = performance.now() - at;
    slowest = Math.max(slowest, took);
    if (took > 1000) wrong = `took ${took.toFixed(0)} ms`;
    if (wrong !== null) {
      const kind = wrong.replaceAll(/\d+/g, "N").slice(0, 90);
      const seen = (kinds.get(kind) ?? 0) + 1;
      kinds.set(kind, seen);
      if (seen === 1) {
        const kept = join(tmpdir(), `tempora-fuzz-${name}-${kinds.size}`);
        writeFileSync(kept, bytes);
        console.log(`  ${name}: ${wrong} (${kept})`);
      }
    }
    if (index === Math.floor(count / 4)) {
      Bun.gc(true);
      memory = process.memoryUsage().rss;
    }
  }
  Bun.gc(true);
  const grown = (process.memoryUsage().rss - memory) / 2 ** 20;
  if (grown > 300) kinds.set("memory that stays", 1);
  found += kinds.size;
  if (kinds.size === 0) passed++;
  const seconds = (performance.now() - begun) / 1000;
  console.log(
    `${kinds.size === 0 ? "ok    " : "failed"}  ${name.padEnd(12)} ${count} inputs, ${taken} taken, slowest ${slowest.toFixed(0)} ms, memory ${grown >= 0 ? "+" : ""}${grown.toFixed(0)} MiB, ${seconds.toFixed(0)} s`,
  );
}
engine.dispose();
rmSync(scratch, { recursive: true });
console.log(`${passed} passed, ${found} failed`);
process.exitCode = found === 0 ? 0 : 1;
