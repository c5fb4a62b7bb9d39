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

const longWork = forestOf(16, 400, slowConfig.vocabSize);
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

async function inWorker(scenario: string): Promise<Worker> {
  const worker = new Worker(new URL(import.meta.url), { workerData: scenario });
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

/** Takes 8 MB of gradients and workspace besides the weights, and gives all of it back. */
async function takeAndGiveBack(): Promise<void> {
  using engine = await Engine.random({ ...tinyConfig, vocabSize: 20_000, hiddenSize: 64 }, { device: "cpu" });
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
    setTimeout(() => {
      throw new Error("thrown on purpose");
    }, 0);
    await pause(10_000);
  },
  async "interrupt-in-flight"() {
    const engine = await slowEngine();
    const abort = new AbortController();
    process.on("SIGINT", () => abort.abort());
    setTimeout(() => process.kill(process.pid, "SIGINT"), 50);
    const start = performance.now();
    const outcome = await engine.supervisedStep(longWork, { signal: abort.signal }).catch((error: Error) => error.name);
    engine.dispose();
    if (outcome === "AbortError" && performance.now() - start < 2000) console.log("done");
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
    using engine = await Engine.random(tinyConfig, { device: "cpu" });
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
    const workers = await Promise.all([inWorker("orderly"), inWorker("orderly")]);
    using engine = await Engine.random(tinyConfig, { device: "cpu" });
    await engine.logProbs(shortWork);
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve))));
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
  async "dropped-handles"() {
    const before = residentBytes();
    for (let handle = 0; handle < 60; handle++) {
      await Engine.random({ ...tinyConfig, vocabSize: 20_000, hiddenSize: 64 }, { device: "cpu" });
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
    const engine = await slowEngine();
    const prompts = [{ ids: someIds(50, slowConfig.vocabSize, 1) }];
    let told = false;
    for await (const _ of engine.generate(prompts, { n: 1000, maxNewTokens: 40, maxRows: 8 })) {
      if (!told) ready();
      told = true;
    }
  },
  async orderly(ready) {
    using engine = await Engine.random(tinyConfig, { device: "cpu" });
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
