/**
 * Ways to leave an engine, each run in a process of its own by lifetime.test.ts: `bun lifetime.ts <scenario>`. A scenario
 * prints "done" when it got to its end; how the process ends is the test's business.
 */
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { Engine } from "../engine.ts";
import { type Forest, ForestBuilder } from "../forest.ts";
import { slowConfig, someIds, tinyConfig } from "./models.ts";

function forestOf(trees: number, length: number, vocabSize: number): Forest {
  const builder = new ForestBuilder();
  for (let tree = 0; tree < trees; tree++) {
    builder.add(someIds(length, vocabSize, 10 + tree), builder.add(someIds(length, vocabSize, tree)));
  }
  return builder.build();
}

const longWork = forestOf(12, 300, slowConfig.vocabSize);
const shortWork = forestOf(1, 4, tinyConfig.vocabSize);

function slowEngine(): Promise<Engine> {
  return Engine.random(slowConfig, { device: "cpu" });
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Starts work that runs for seconds and lets it get going. */
async function busyEngine(): Promise<Engine> {
  const engine = await slowEngine();
  for (let call = 0; call < 3; call++) engine.supervisedStep(longWork).catch(() => {});
  await pause(50);
  return engine;
}

function startWorker(scenario: string): Worker {
  return new Worker(new URL(import.meta.url), { workerData: scenario });
}

async function inWorker(scenario: string): Promise<Worker> {
  const worker = startWorker(scenario);
  await new Promise<void>((resolve, reject) => {
    worker.once("message", () => resolve());
    worker.once("error", reject);
  });
  return worker;
}

function residentBytes(): number {
  Bun.gc(true);
  return process.memoryUsage.rss();
}

/** Two megabytes of weights; drawn in a few milliseconds. */
const wideConfig = { ...tinyConfig, vocabSize: 8000, hiddenSize: 64, tiedHead: true };

/** Takes weights, a copy of them, gradients, workspace and cache, 20 MB and more, and gives all of it back. */
async function takeAndGiveBack(): Promise<void> {
  using engine = await Engine.random(wideConfig, { device: "cpu", threads: 1 });
  using snapshot = await engine.snapshot();
  await engine.supervisedStep(shortWork);
  for await (const _ of engine.generate([{ ids: [1, 2] }], { maxNewTokens: 2 })) break;
  await engine.restore(snapshot);
}

const scenarios: Record<string, () => Promise<void>> = {
  async "dispose-in-flight"() {
    const engine = await busyEngine();
    engine.dispose();
    engine.dispose();
    console.log("done");
  },
  async "fall-off-the-end"() {
    const engine = await slowEngine();
    void engine.logProbs(forestOf(1, 20, slowConfig.vocabSize)).then(() => console.log("done"));
  },
  async "exit-in-flight"() {
    await busyEngine();
    console.log("done");
    process.exit(7);
  },
  async "throw-in-flight"() {
    await busyEngine();
    console.log("done");
    throw new Error("thrown on purpose");
  },
  async "interrupt-in-flight"() {
    const engine = await slowEngine();
    const abort = new AbortController();
    process.on("SIGINT", () => abort.abort());
    setTimeout(() => process.kill(process.pid, "SIGINT"), 50);
    const outcome = await engine.supervisedStep(longWork, { signal: abort.signal }).catch((error: Error) => error.name);
    engine.dispose();
    console.log(outcome === "AbortError" ? "done" : `the step was not interrupted: ${JSON.stringify(outcome)}`);
  },
  async "killed-in-flight"() {
    await busyEngine();
    console.log("done");
    process.kill(process.pid, "SIGTERM");
    await pause(10_000);
  },
  async "worker-terminated"() {
    for (let round = 0; round < 3; round++) {
      const worker = await inWorker("busy");
      await worker.terminate();
    }
    using engine = await Engine.random(tinyConfig, { device: "cpu", threads: 1 });
    await engine.logProbs(shortWork);
    console.log("done");
  },
  async "worker-generating-terminated"() {
    const worker = await inWorker("generating");
    await worker.terminate();
    await pause(200);
    console.log("done");
  },
  async "workers-side-by-side"() {
    const workers = [startWorker("orderly"), startWorker("orderly")];
    const ended = workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
    using engine = await Engine.random(tinyConfig, { device: "cpu", threads: 1 });
    await engine.logProbs(shortWork);
    for (const code of await Promise.all(ended)) if (code !== 0) throw new Error(`a Worker ended with ${code}`);
    console.log("done");
  },
  async "exit-with-worker-busy"() {
    await inWorker("busy");
    console.log("done");
    process.exit(7);
  },
  async "many-handles"() {
    for (let handle = 0; handle < 20; handle++) await takeAndGiveBack();
    const before = residentBytes();
    for (let handle = 0; handle < 200; handle++) await takeAndGiveBack();
    const grown = (residentBytes() - before) / 2 ** 20;
    console.log(grown < 40 ? "done" : `resident memory grew by ${grown.toFixed(0)} MiB`);
  },
  async "thousand-trainings"() {
    const once = async (seed: number) => {
      using engine = await Engine.random(tinyConfig, { device: "cpu", threads: 1, seed });
      await engine.adapters.add("a", { rank: 2, alpha: 4 });
      await engine.adapters.activate("a");
      await engine.supervisedStep(shortWork);
      await engine.optimizerStep({ learningRate: 0.1 });
      await engine.adapters.activate(null);
      await engine.supervisedStep(shortWork);
      await engine.optimizerStep({ learningRate: 0.1 });
      const prompts = [{ ids: someIds(5, tinyConfig.vocabSize, seed), adapter: "a" }];
      for await (const _ of engine.generate(prompts, { n: 2, maxNewTokens: 4 }));
    };
    for (let seed = 0; seed < 200; seed++) await once(seed);
    Bun.gc(true);
    const before = residentBytes();
    for (let seed = 200; seed < 1000; seed++) await once(seed);
    Bun.gc(true);
    const grown = (residentBytes() - before) / 2 ** 20;
    console.log(grown < 20 ? "done" : `resident memory grew by ${grown.toFixed(0)} MiB`);
  },
  async "dropped-handles"() {
    const before = residentBytes();
    for (let handle = 0; handle < 60; handle++) {
      await Engine.random(wideConfig, { device: "cpu", threads: 1 }).then((engine) => engine.supervisedStep(shortWork));
      Bun.gc(true);
      await pause(1);
    }
    const grown = (residentBytes() - before) / 2 ** 20;
    console.log(grown < 200 ? "done" : `resident memory grew by ${grown.toFixed(0)} MiB`);
  },
};

const workerScenarios: Record<string, (ready: () => void) => Promise<void>> = {
  async busy(ready) {
    await busyEngine();
    ready();
    await pause(10_000);
  },
  async generating(ready) {
    const engine = await Engine.random(slowConfig, { device: "cpu", threads: 1 });
    const prompts = [{ ids: someIds(50, slowConfig.vocabSize, 1) }];
    let told = false;
    for await (const _ of engine.generate(prompts, { n: 1000, maxNewTokens: 40, maxRows: 8 })) {
      if (!told) ready();
      told = true;
    }
  },
  async orderly(ready) {
    using engine = await Engine.random(tinyConfig, { device: "cpu", threads: 1 });
    await engine.supervisedStep(shortWork);
    ready();
    await engine.optimizerStep({ learningRate: 0.1 });
  },
};

if (isMainThread) {
  const scenario = scenarios[process.argv[2] ?? ""];
  if (scenario === undefined) throw new Error(`Name one of ${Object.keys(scenarios).join(", ")}`);
  await scenario();
} else {
  const { parentPort } = await import("node:worker_threads");
  await workerScenarios[workerData as string]?.(() => parentPort?.postMessage("ready"));
}
