import { cosine, type Interval, interval95 } from "@tempora/preferences";
import { packForests, pairItem } from "@tempora/training";
import type { ModelRef } from "../models/model-ref.ts";
import { RowLog, type SealedRows, sealedRows } from "../store/row-log.ts";
import { type Position, type RunContext, runStage } from "./context.ts";
import type { PairSet } from "./pair-set.ts";

/** Of one pair, as the store keeps it; null where a representation is zero. */
interface PairCosine {
  pair: number;
  cosine: number | null;
}

/**
 * How alike chosen and rejected are to a model: the mean over the pairs of the cosine similarity of their last-layer
 * representations, the final-norm states at their last tokens, which have seen prompt and answer.
 */
export async function pairCosinesStage(
  context: RunContext,
  plan: { model: ModelRef; pairs: PairSet; position: Position },
): Promise<Interval> {
  const { model, pairs } = plan;
  const { maxTokens } = context.settings.training;
  const { result, folder } = await runStage<{ cosines: SealedRows }>(context, {
    kind: "representations",
    label: `representations of the pairs under ${model.name}`,
    total: pairs.list.length,
    unit: "pairs",
    position: plan.position,
    inputs: { model: model.hash, pairs: pairs.hash, maxTokens },
    compute: async (stage, progress) => {
      const { engine } = await context.host.use(model);
      const size = engine.config.hiddenSize;
      const log = await RowLog.open<PairCosine>(stage, "cosines", { place: ({ pair }) => pair });
      let done = 0;
      try {
        const limits = { maxTokens, maxPositions: engine.config.maxPositions };
        for (const { forest, items, leaves } of packForests(pairs.list.map(pairItem), limits)) {
          const states = await engine.hiddenStates(forest, leaves.flat(), { signal: context.signal });
          const state = (k: number) => states.subarray(k * size, (k + 1) * size);
          for (const [position, pair] of items.entries()) {
            await log.add({ pair, cosine: cosine(state(2 * position), state(2 * position + 1)) });
          }
          done += items.length;
          progress(done);
        }
      } finally {
        await log.close();
      }
      return { cosines: await log.seal() };
    },
  });
  const values: number[] = [];
  for await (const { cosine: value } of sealedRows<PairCosine>(folder, "cosines", result.cosines)) {
    if (value !== null) values.push(value);
  }
  return interval95(values);
}
