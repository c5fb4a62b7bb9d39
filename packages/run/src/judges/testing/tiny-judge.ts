import { Engine } from "@tempora/engine";
import { checkpointHash, openCheckpoint } from "@tempora/models";
import { oracle } from "@tempora/testing";
import { Tokenizer } from "@tempora/text";
import type { LoadedModel } from "../../models/model-host.ts";
import type { Response } from "../judge.ts";
import type { JudgeModel } from "../sampled.ts";

/** A small random model, which judges without knowing anything. Counts how often it was loaded. */
export async function tinyJudge(): Promise<JudgeModel & Disposable & { loaded: LoadedModel }> {
  const folder = oracle("llama", "policy");
  const checkpoint = await openCheckpoint(folder);
  const engine = await Engine.load(checkpoint, { device: "cpu", threads: 1 });
  const tokenizer = await Tokenizer.load(folder);
  const loaded = { engine, checkpoint, tokenizer, endTokens: checkpoint.endTokens };
  return {
    name: "M0",
    folder,
    hash: await checkpointHash(folder),
    loaded,
    load: async () => loaded,
    [Symbol.dispose]: () => engine.dispose(),
  };
}

export function responsesTo(prompts: readonly string[], texts: readonly string[]): Response[] {
  return prompts.flatMap((prompt, row) =>
    texts.map((text) => ({
      promptId: prompt,
      prompt,
      promptText: prompt,
      text,
      columns: { truth: prompt.length },
      where: { file: "prompts.jsonl", row: row + 1 },
    })),
  );
}
