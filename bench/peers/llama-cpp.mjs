// llama.cpp on the CPU, through node-llama-cpp, whose npm package carries the binary: the peer of our generation.
//   node llama-cpp.mjs MODEL.gguf PROMPT_TOKENS NEW_TOKENS SAMPLES[,SAMPLES...]
// The samples share one prompt; one JSON line a sample count: new tokens and seconds, prompt processing included.

import { createRequire } from "node:module";
import { cpus } from "node:os";
import { pathToFileURL } from "node:url";

const [modelPath, prompt, fresh, counts] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { getLlama } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath });
const tokens = Array.from({ length: Number(prompt) }, (_, i) => (i * 7) % 20_000);

for (const samples of counts.split(",").map(Number)) {
  const context = await model.createContext({
    contextSize: Number(prompt) + Number(fresh) + 64,
    sequences: samples,
    threads: cpus().length,
    batchSize: 512,
  });
  const start = performance.now();
  let total = 0;
  await Promise.all(
    Array.from({ length: samples }, async (_, seed) => {
      let count = 0;
      const options = { temperature: 0.7, topP: 0.9, seed, yieldEogToken: true };
      for await (const _token of context.getSequence().evaluate(tokens, options)) {
        total++;
        if (++count >= Number(fresh)) break;
      }
    }),
  );
  console.log(JSON.stringify({ samples, tokens: total, seconds: (performance.now() - start) / 1000 }));
  await context.dispose();
}
await llama.dispose();
