// llama.cpp on the CPU, through node-llama-cpp, whose npm package carries the binary: the peer of our generation.
//   node llama-cpp.mjs MODEL.gguf CASES SAMPLING
//     CASES: JSON [{"prompt": 128, "samples": 7, "newTokens": 128}, ...]; SAMPLING: JSON {"temperature", "topP"}
// The samples of a case share one prompt; one JSON line a case: new tokens and seconds, prompt processing included.

import { createRequire } from "node:module";
import { cpus } from "node:os";
import { pathToFileURL } from "node:url";

const [modelPath, cases, sampling] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { getLlama } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath });

for (const work of JSON.parse(cases)) {
  const tokens = Array.from({ length: work.prompt }, (_, i) => (i * 7) % 20_000);
  const context = await model.createContext({
    contextSize: work.prompt + work.newTokens + 64,
    sequences: work.samples,
    threads: cpus().length,
    batchSize: 512,
  });
  const start = performance.now();
  let total = 0;
  await Promise.all(
    Array.from({ length: work.samples }, async (_, seed) => {
      let count = 0;
      const options = { ...JSON.parse(sampling), seed, yieldEogToken: true };
      for await (const _token of context.getSequence().evaluate(tokens, options)) {
        total++;
        if (++count >= work.newTokens) break;
      }
    }),
  );
  console.log(JSON.stringify({ ...work, tokens: total, seconds: (performance.now() - start) / 1000 }));
  await context.dispose();
}
await llama.dispose();
