/**
 * The peers, installed outside the workspace and measured in the same run as Tempora: torch and TRL in a Python virtual
 * environment beside this file, llama.cpp through node-llama-cpp in the user's cache.
 */
import { existsSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TemporaError } from "@tempora/errors";
import { llamaCppFolder } from "../../packages/testing/src/llama-cpp.ts";
import { type GenerationCase, samplingSettings } from "../generation.ts";
import { jsonLines, run } from "../process.ts";
import type { StepMeasurement } from "../step.ts";

const here = import.meta.dirname;
const pythonFolder = join(here, ".python");
const llamaFolder = join(here, ".llama");
const python = join(pythonFolder, "bin", "python");

const pythonPackages = [
  "torch==2.13.0",
  "transformers==5.18.0",
  "trl==1.13.0",
  "peft==0.21.2",
  "datasets",
  "accelerate",
  "gguf",
  "numpy",
];
/** The formats that llama.cpp is measured in: ours, and two that it is used in. */
export const llamaTypes = ["BF16", "Q8_0", "Q4_1"] as const;
export type LlamaType = (typeof llamaTypes)[number];

export interface LlamaMeasurement extends GenerationCase {
  /** The format of its weights. */
  type: string;
  tokens: number;
  seconds: number;
}

/** The 135M shape with random weights. */
export function llamaModel(type: LlamaType): string {
  return join(llamaFolder, `peaked-${type}.gguf`);
}

const torchCpuIndex = "https://download.pytorch.org/whl/cpu";

export interface TrlCase {
  cachedReference: boolean;
  /** Of PEFT's adapters on all linear modules; null: the whole model is trained. */
  loraRank: number | null;
}

/** Installs what is not there yet. Says what it does; throws when a tool or the network is missing. */
export async function installPeers(say: (line: string) => void): Promise<void> {
  if (!existsSync(join(pythonFolder, "complete"))) {
    say(`installing ${pythonPackages.slice(0, 4).join(", ")} into bench/peers/.python`);
    await rm(pythonFolder, { recursive: true, force: true });
    await run("python3", ["-m", "venv", pythonFolder], {
      remedy: "Install Python 3 with venv (apt install python3-venv).",
    });
    // PyPI's wheel brings gigabytes of CUDA libraries; the CPU index is used where it can be reached.
    const reachable = await fetch(`${torchCpuIndex}/torch/`, { signal: AbortSignal.timeout(5000) }).then(
      (response) => response.ok,
      () => false,
    );
    const index = reachable ? ["--extra-index-url", torchCpuIndex] : [];
    await run(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...index, ...pythonPackages], {
      remedy: "Check the network; the packages come from PyPI.",
    });
    await writeFile(join(pythonFolder, "complete"), "");
  }
  say("llama.cpp: node-llama-cpp from npm, into the user's cache");
  await run("bun", [join(here, "../../scripts/fetch-llama-cpp.ts")], {
    remedy: "Install Node.js with npm, and check the network.",
  });
  await mkdir(llamaFolder, { recursive: true });
  for (const type of llamaTypes) {
    const model = llamaModel(type);
    if (existsSync(model)) continue;
    say(`writing a GGUF file of the 135M shape in ${type}`);
    await run(python, [join(here, "random_gguf.py"), `${model}.part`, type], { remedy: "Look at the message above." });
    await rename(`${model}.part`, model);
  }
}

export async function measureTrl({ cachedReference, loraRank }: TrlCase): Promise<StepMeasurement> {
  const flags = [
    ...(cachedReference ? ["--cached-reference"] : []),
    ...(loraRank === null ? [] : ["--lora-rank", `${loraRank}`]),
  ];
  return last(await run(python, [join(here, "trl_dpo.py"), ...flags], { cwd: pythonFolder, remedy: reinstall }));
}

export async function measureTorchHead(): Promise<{ seconds: number }> {
  return last(await run(python, [join(here, "torch_head.py")], { remedy: reinstall }));
}

/** All cases of a model in one process. */
export async function measureLlama(
  model: string,
  type: string,
  cases: readonly GenerationCase[],
): Promise<LlamaMeasurement[]> {
  const parameters = [model, JSON.stringify(cases), JSON.stringify(samplingSettings)];
  const output = await run("node", [join(here, "llama-cpp.mjs"), ...parameters], {
    cwd: llamaCppFolder(),
    remedy: reinstall,
  });
  return jsonLines<Omit<LlamaMeasurement, "type">>(output).map((line) => ({ ...line, type }));
}

const reinstall = `Remove bench/peers/.python, bench/peers/.llama and ${llamaCppFolder()} and run the command again.`;

function last<T>(output: string): T {
  const lines = jsonLines<T>(output);
  const line = lines[lines.length - 1];
  if (line === undefined) throw new TemporaError("A peer printed no measurement", { remedy: reinstall });
  return line;
}
