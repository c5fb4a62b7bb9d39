/**
 * Answers of two roles, past and current model, as a run on adapters samples them: from one generation whose prompts stand under
 * both adapters, beside two generations one after the other. `bun bench/roles.ts [PROMPTS] [SAMPLES]`, 135M shape in bf16.
 */
import { type Completion, Engine, ForestBuilder } from "@tempora/engine";
import { promptIds, randomWeights, samplingSettings } from "./generation.ts";
import { loraRank } from "./step.ts";

const [prompts, samples] = [Number(process.argv[2] ?? 4), Number(process.argv[3] ?? 7)];
const newTokens = 64;
const rounds = 4;
const roles = ["past", "current"] as const;
type Role = (typeof roles)[number];

/** The same rows, with the same bits, whichever way: a row has its seed from its key. */
function requests(own: readonly Role[]) {
  return own.flatMap((adapter, role) =>
    Array.from({ length: prompts }, (_, k) => ({
      ids: promptIds(128).map((id) => (id + 97 * k) % 20_000),
      key: 1000 * roles.indexOf(own[role] as Role) + k,
      adapter,
    })),
  );
}

async function generate(engine: Engine, own: readonly Role[]): Promise<string[]> {
  const asked = requests(own);
  const rows = asked.length * samples;
  const options = { n: samples, ...samplingSettings, maxNewTokens: newTokens, seed: 1, maxRows: rows };
  const lines: string[] = [];
  const said = ({ prompt, sample, ids }: Completion) => `${asked[prompt]?.key} ${sample} ${ids.join(" ")}`;
  for await (const completion of engine.generate(asked, options)) lines.push(said(completion));
  return lines.sort();
}

async function timed(work: () => Promise<string[]>): Promise<{ seconds: number; lines: string[] }> {
  const begun = performance.now();
  const lines = await work();
  return { seconds: (performance.now() - begun) / 1000, lines };
}

using engine = await Engine.load(randomWeights("peaked"), { device: "cpu", dtype: "bf16" });
for (const [seed, role] of roles.entries()) {
  await engine.adapters.add(role, { rank: loraRank, alpha: 2 * loraRank, targets: "all-linear" }, { seed });
  // A new adapter changes nothing yet.
  await engine.adapters.activate(role);
  const builder = new ForestBuilder();
  builder.add(promptIds(16), -1, true);
  await engine.accumulate(builder.build(), new Float32Array(16).fill(-1));
  await engine.optimizerStep({ learningRate: 1e-3 });
}
await engine.adapters.activate(null);
await generate(engine, roles); // packs the weights
const ratios: number[] = [];
for (let round = 0; round < rounds; round++) {
  const one = await timed(() => generate(engine, roles));
  const two = await timed(async () => [
    ...(await generate(engine, ["past"])),
    ...(await generate(engine, ["current"])),
  ]);
  if (one.lines.join("\n") !== two.lines.sort().join("\n")) throw new Error("one generation gave other rows than two");
  ratios.push(two.seconds / one.seconds);
  console.log(
    JSON.stringify({ prompts, samples, together: one.seconds, apart: two.seconds, ratio: two.seconds / one.seconds }),
  );
}
