import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** As `scripts/fetch-llama-cpp.ts` installs it: llama.cpp with its binary for this platform, no dependency of ours. */
export const llamaCppVersion = "3.22.1";

/** Where node-llama-cpp is put: outside the repository, shared by all clones. */
export function llamaCppFolder(environment: Record<string, string | undefined> = process.env): string {
  const cache = environment.XDG_CACHE_HOME || join(homedir(), ".cache");
  return join(cache, "tempora", `node-llama-cpp-${llamaCppVersion}`);
}

/** What is used of node-llama-cpp's models. */
export interface LlamaModel {
  createContext(options: {
    contextSize: number;
    threads: number;
    lora?: { adapters: { filePath: string; scale?: number }[] };
    flashAttention?: boolean;
    experimentalKvCacheKeyType?: "F32";
    experimentalKvCacheValueType?: "F32";
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

/** A GGUF file opened by llama.cpp on the CPU. */
export async function openInLlamaCpp(modelPath: string): Promise<LlamaModel> {
  const path = createRequire(join(llamaCppFolder(), "package.json")).resolve("node-llama-cpp");
  const { getLlama } = (await import(pathToFileURL(path).href)) as LlamaModule;
  const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
  return llama.loadModel({ modelPath });
}

const exact = {
  flashAttention: false,
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
} as const;

/** Tokens and the log-probs that the last of them should have. */
export interface ScoredTokens {
  prompt: readonly number[];
  completion: readonly number[];
  /** One for each token of the completion. */
  logprobs: readonly number[];
}

export interface LlamaOptions {
  /** A GGUF file of a LoRA adapter that the model is run with. */
  adapter?: string | undefined;
  /** Attention in f32 throughout, where llama.cpp by itself holds keys and values in half precision. */
  exactAttention?: boolean;
}

/** Differences of llama.cpp's log-probs of completions from those given, one list a row. */
export async function llamaCppDifferences(
  model: LlamaModel,
  rows: readonly ScoredTokens[],
  { adapter, exactAttention = false }: LlamaOptions = {},
): Promise<number[][]> {
  const context = await model.createContext({
    contextSize: 1024,
    threads: 2,
    ...(adapter === undefined ? {} : { lora: { adapters: [{ filePath: adapter }] } }),
    ...(exactAttention ? exact : {}),
  });
  const sequence = context.getSequence();
  const differences: number[][] = [];
  for (const { prompt, completion, logprobs } of rows) {
    await sequence.clearHistory();
    const first = prompt.length - 1;
    const wanted = { generateNext: { probabilities: true } } as const;
    const input = [...prompt, ...completion]
      .slice(0, -1)
      .map((token, i): number | [number, typeof wanted] => (i < first ? token : [token, wanted]));
    const output = await sequence.controlledEvaluate(input);
    const own = completion.map((token, i) => Math.log(output[first + i]?.next.probabilities.get(token) ?? 0));
    differences.push(own.map((value, i) => value - (logprobs[i] ?? Number.NaN)));
  }
  await context.dispose();
  return differences;
}

/** Whether llama.cpp was fetched. */
export function hasLlamaCpp(): boolean {
  return existsSync(join(llamaCppFolder(), "node_modules", "node-llama-cpp"));
}
