/**
 * lm-evaluation-harness against `tempora serve`: the same tasks over HTTP (`local-completions`) and on the harness's own
 * `hf` backend must give the same accuracies, and nearly the same log-likelihoods.
 *   bun bench/clients/lm-eval.ts MODEL      a Hugging Face folder, or a name on the hub: the backend reads no other file
 * Installs lm-eval and torch from PyPI into bench/clients/.lm-eval once: some gigabytes.
 */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TemporaError } from "@tempora/errors";
import { run } from "../process.ts";
import { startServer } from "./served.ts";
import { questions, taskFiles } from "./words.ts";

const venv = process.env.TEMPORA_LM_EVAL ?? join(import.meta.dirname, ".lm-eval");
const harness = join(venv, "bin", "lm_eval");
const tasks = { tempora_choices: "acc,none", tempora_continue: "exact_match,none" } as const;
/** f32 sums in another order. */
const largestDifference = 1e-3;

interface Outcome {
  /** By task. */
  accuracy: Record<string, number>;
  /** Log-likelihood of every choice of every question, and whether it is what the model would say. */
  choices: [number, boolean][];
  texts: string[];
}

async function install(): Promise<void> {
  if (existsSync(harness)) return;
  const remedy = "Install Python 3 with venv, and check the network.";
  console.error(`installing lm-eval and torch into ${venv}`);
  await run("python3", ["-m", "venv", venv], { remedy });
  await run(join(venv, "bin", "pip"), ["install", "--quiet", "lm_eval[api,hf]==0.4.13", "torch"], { remedy });
}

/** Runs the harness, and reads what it writes. */
async function evaluate(folder: string, name: string, backend: string, settings: string): Promise<Outcome> {
  const output = join(folder, name);
  const args = ["--model", backend, "--model_args", settings, "--tasks", Object.keys(tasks).join(",")];
  const rest = ["--include_path", folder, "--output_path", output, "--log_samples", "--batch_size", "8"];
  const began = performance.now();
  await run(harness, ["run", ...args, ...rest, "--device", "cpu"], { remedy: "Look at the message above." });
  console.error(`${name}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
  const files = await readdir(output, { recursive: true });
  const read = async (pattern: RegExp) => {
    const file = files.find((one) => pattern.test(one));
    if (file === undefined) throw new TemporaError("The harness wrote no results", { remedy: "Look at its output." });
    return readFile(join(output, file), "utf8");
  };
  const results = JSON.parse(await read(/results_.*\.json$/)) as { results: Record<string, Record<string, number>> };
  const rows = async <T>(task: string) =>
    (await read(new RegExp(`samples_${task}_.*\\.jsonl$`)))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { doc_id: number; filtered_resps: T[] })
      .sort((a, b) => a.doc_id - b.doc_id);
  return {
    accuracy: Object.fromEntries(
      Object.entries(tasks).map(([task, metric]) => [task, results.results[task]?.[metric] ?? Number.NaN]),
    ),
    choices: (await rows<[string | number, string | boolean]>("tempora_choices")).flatMap(({ filtered_resps }) =>
      filtered_resps.map(([value, greedy]): [number, boolean] => [
        Number(value),
        String(greedy) === "True" || greedy === true,
      ]),
    ),
    texts: (await rows<string>("tempora_continue")).flatMap(({ filtered_resps }) => filtered_resps),
  };
}

async function main(model: string): Promise<void> {
  await install();
  const folder = join(tmpdir(), `tempora-lm-eval-${process.pid}`);
  await mkdir(folder, { recursive: true });
  try {
    const file = join(folder, "questions.jsonl");
    await writeFile(
      file,
      questions()
        .map((row) => `${JSON.stringify(row)}\n`)
        .join(""),
    );
    for (const [name, text] of Object.entries(taskFiles(file))) await writeFile(join(folder, name), text);
    const server = await startServer([model, "--name", "served", "--dtype", "f32"]);
    const url = `${server.url}/v1/completions`;
    const served = await evaluate(folder, "served", "local-completions", `model=served,base_url=${url},max_length=512`);
    await server.stop();
    const own = await evaluate(folder, "hf", "hf", `pretrained=${model},dtype=float32,max_length=512`);
    report(served, own);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function report(served: Outcome, own: Outcome): void {
  const differences = served.choices.map(([value], i) => Math.abs(value - (own.choices[i]?.[0] ?? Number.NaN)));
  const most = Math.max(...differences);
  const greedy = served.choices.filter(([, greedy], i) => greedy !== own.choices[i]?.[1]).length;
  const texts = served.texts.filter((text, i) => text !== own.texts[i]).length;
  for (const task of Object.keys(tasks))
    console.log(`${task}: served ${served.accuracy[task]}, hf ${own.accuracy[task]}`);
  console.log(`log-likelihoods of ${differences.length} choices: largest difference ${most.toExponential(2)}`);
  console.log(`greedy flags that differ: ${greedy}; texts that differ: ${texts} of ${served.texts.length}`);
  const same = Object.keys(tasks).every((task) => served.accuracy[task] === own.accuracy[task]);
  if (same && most < largestDifference && greedy === 0 && texts === 0) return;
  throw new TemporaError("The server and the harness's own backend disagree", { remedy: "See the figures above." });
}

const [model] = process.argv.slice(2);
if (model === undefined) throw new TemporaError("Which model?", { remedy: "bun bench/clients/lm-eval.ts MODEL" });
await main(model);
