import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { families, oracle, readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { temporaJson } from "./support/cli.ts";

interface Row {
  prompt_ids: number[];
  chosen_ids: number[];
  chosen_logprobs: number[];
}

/** What is used of node-llama-cpp: it comes with `bun run bench --peers` and is no dependency of ours. */
interface LlamaModel {
  createContext(options: {
    contextSize: number;
    threads: number;
    lora?: { adapters: { filePath: string; scale?: number }[] };
  }): Promise<{
    getSequence(): {
      controlledEvaluate(
        input: (number | [number, { generateNext: { probabilities: true } }])[],
      ): Promise<({ next: { probabilities: Map<number, number> } } | undefined)[]>;
      clearHistory(): Promise<void>;
    };
    dispose(): Promise<void>;
  }>;
  dispose(): Promise<void>;
}
interface LlamaModule {
  getLlama(options: object): Promise<{ loadModel(options: { modelPath: string }): Promise<LlamaModel> }>;
}

const peers = new URL("../bench/peers/.llama/", import.meta.url).pathname;
const installed = existsSync(join(peers, "complete"));
if (!installed) {
  process.stderr.write(
    "skipped: exports in llama.cpp: node-llama-cpp is not there (`bun run bench --peers` installs it)\n",
  );
}

async function llamaCpp(modelPath: string): Promise<LlamaModel> {
  const path = createRequire(join(peers, "package.json")).resolve("node-llama-cpp");
  const { getLlama } = (await import(pathToFileURL(path).href)) as LlamaModule;
  const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
  return llama.loadModel({ modelPath });
}

/** Mean distance of llama.cpp's log-probs from transformers' over some answers. */
async function meanDistance(model: LlamaModel, rows: readonly Row[], adapter?: string): Promise<number> {
  const lora = adapter === undefined ? {} : { lora: { adapters: [{ filePath: adapter }] } };
  const context = await model.createContext({ contextSize: 512, threads: 1, ...lora });
  const sequence = context.getSequence();
  const differences: number[] = [];
  for (const { prompt_ids, chosen_ids, chosen_logprobs } of rows) {
    await sequence.clearHistory();
    const first = prompt_ids.length - 1;
    const input = [...prompt_ids, ...chosen_ids].slice(0, -1).map((token, i) => {
      const wanted: [number, { generateNext: { probabilities: true } }] = [
        token,
        { generateNext: { probabilities: true } },
      ];
      return i < first ? token : wanted;
    });
    const output = await sequence.controlledEvaluate(input);
    for (const [i, token] of chosen_ids.entries()) {
      const probability = output[first + i]?.next.probabilities.get(token) ?? 0;
      differences.push(Math.abs(Math.log(probability) - chosen_logprobs[i]!));
    }
  }
  await context.dispose();
  return differences.reduce((sum, value) => sum + value, 0) / differences.length;
}

// The sliding window of the mistral oracle is shorter than its texts: llama.cpp takes no notice of it.
const computed = families.filter((family) => family !== "mistral");

test.skipIf(!installed).each(computed)("llama.cpp computes an exported %s as transformers does", async (family) => {
  const file = join(await scratch(), `${family}.gguf`);
  await temporaJson(["export", "--model", oracle(family, "policy"), "--out", file, "--type", "f16"]);
  const model = await llamaCpp(file);
  expect(await meanDistance(model, readLines<Row>(oracle(family, "logprobs.jsonl")).slice(0, 4))).toBeLessThan(5e-3);
  await model.dispose();
});

test.skipIf(!installed).each(computed)("llama.cpp takes an exported adapter over %s as PEFT does", async (family) => {
  const folder = await scratch();
  const [base, adapter] = [join(folder, `${family}.gguf`), join(folder, `${family}-adapter.gguf`)];
  const model = ["--model", oracle(family, "reference")];
  await temporaJson(["export", ...model, "--out", base, "--type", "f16"]);
  await temporaJson(["merge", ...model, "--adapter", oracle(family, "lora/adapter"), "--out", adapter]);
  const rows = readLines<Row>(oracle(family, "lora/logprobs.jsonl")).slice(0, 4);
  const loaded = await llamaCpp(base);
  expect(await meanDistance(loaded, rows, adapter)).toBeLessThan(5e-3);
  // The adapter matters: without it the numbers are others.
  expect(await meanDistance(loaded, rows)).toBeGreaterThan(2e-2);
  await loaded.dispose();
});
