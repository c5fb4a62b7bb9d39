import { hashJson } from "@tempora/errors";
import { cosine } from "@tempora/preferences";
import { type PairIds, packForests, pairItem } from "@tempora/training";
import type { ModelRef } from "../models/model-ref.ts";
import { type Position, type RunContext, runStage } from "./context.ts";

/**
 * Cosine similarity of the last-layer representations of each pair's chosen and rejected answer: the final-norm states at
 * their last tokens, which have seen prompt and answer. One value a pair; a zero state counts as null.
 */
export async function cosineStage(
  context: RunContext,
  plan: { model: ModelRef; pairs: readonly PairIds[]; position: Position },
): Promise<(number | null)[]> {
  const { model, pairs } = plan;
  const { maxTokens } = context.settings.training;
  const { result } = await runStage<{ cosines: (number | null)[] }>(context, {
    kind: "representations",
    label: `representations of the pairs under ${model.name}`,
    total: pairs.length,
    unit: "pairs",
    position: plan.position,
    inputs: {
      model: model.hash,
      pairs: hashJson(pairs.map(({ promptIds, chosenIds, rejectedIds }) => [promptIds, chosenIds, rejectedIds])),
      maxTokens,
    },
    compute: async (_folder, progress) => {
      const { engine } = await context.host.use(model);
      const size = engine.config.hiddenSize;
      const cosines = new Array<number | null>(pairs.length).fill(null);
      let done = 0;
      const limits = { maxTokens, maxPositions: engine.config.maxPositions };
      for (const { forest, items, leaves } of packForests(pairs.map(pairItem), limits)) {
        const states = await engine.hiddenStates(forest, leaves.flat(), { signal: context.signal });
        const state = (k: number) => states.subarray(k * size, (k + 1) * size);
        items.forEach((item, position) => {
          cosines[item] = cosine(state(2 * position), state(2 * position + 1));
        });
        done += items.length;
        progress(done);
      }
      return { cosines };
    },
  });
  return result.cosines;
}
