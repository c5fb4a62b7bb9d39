import { basename, resolve } from "node:path";
import { type GenerationCase, type GenerationMeasurement, generationCases, type Logits } from "./generation.ts";
import { type LlamaMeasurement, llamaModel, llamaTypes, measureLlama } from "./peers/peers.ts";
import { own, say } from "./process.ts";
import type { BenchRow } from "./row.ts";
import { generationFloor } from "./shapes.ts";

const logitsNames: Record<Logits, string> = { peaked: "", flat: ", flat logits", file: "" };

function caseName({ prompt, samples, logits }: GenerationCase): string {
  const amount = samples === 1 ? "1 sample" : `${samples} samples`;
  return `${amount}, prompt of ${prompt}${logitsNames[logits]}`;
}

function rateOf({ tokens, seconds }: { tokens: number; seconds: number }): number {
  return tokens / seconds;
}

function ownRow(mine: GenerationMeasurement): BenchRow {
  const best = mine.tokens / generationFloor(mine.config, mine, mine.ceilings);
  const rate = rateOf(mine);
  const note = `memory copied at ${(mine.ceilings.bandwidth / 1e9).toFixed(1)} GB/s beside it`;
  return {
    name: `Tempora bf16, ${caseName(mine)}`,
    value: rate,
    unit: "tokens/s",
    floor: best,
    ratio: rate / best,
    note,
  };
}

function peerRow(peer: LlamaMeasurement, mine: GenerationMeasurement): BenchRow {
  return {
    name: `llama.cpp ${peer.type}, ${caseName(mine)}`,
    value: rateOf(peer),
    unit: "tokens/s",
    note: `Tempora is ${(rateOf(mine) / rateOf(peer)).toFixed(2)} times as fast`,
  };
}

async function measurePeers(file: string | undefined): Promise<LlamaMeasurement[]> {
  const cases = generationCases.filter(({ logits }) => logits === "peaked");
  const models =
    file === undefined
      ? llamaTypes.map((type) => ({ type, path: llamaModel(type) }))
      : [{ type: basename(file), path: resolve(file) }];
  const measured: LlamaMeasurement[] = [];
  for (const { type, path } of models) {
    say(`measuring llama.cpp: ${type}`);
    measured.push(...(await measureLlama(path, type, cases)));
  }
  return measured;
}

/** Generation in a process of its own, of random weights or of a model; llama.cpp's in three formats, or of that model. */
export async function generationRows(peers: boolean, file: string | undefined): Promise<BenchRow[]> {
  say("measuring generation");
  const mine = await own<GenerationMeasurement>("generation.ts", file === undefined ? [] : [file]);
  const theirs = peers ? await measurePeers(file) : [];
  return mine.flatMap((measured) => [
    ownRow(measured),
    ...theirs
      .filter(({ prompt, samples }) => prompt === measured.prompt && samples === measured.samples)
      .filter(() => measured.logits !== "flat")
      .map((peer) => peerRow(peer, measured)),
  ]);
}
