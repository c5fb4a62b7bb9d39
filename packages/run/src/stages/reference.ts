import { deriveSeed, type ReferenceSums, scoreReferences } from "@tempora/training";
import type { ModelRef } from "../models/model-ref.ts";
import { Meter } from "../results/ledger.ts";
import type { LedgerTotals } from "../results/results.ts";
import { RowLog, type SealedRows, sealedRows } from "../store/row-log.ts";
import { type Position, type RunContext, runStage } from "./context.ts";
import type { PairSet } from "./pair-set.ts";

/** Of one pair, as the store keeps it. */
interface PairReference extends ReferenceSums {
  pair: number;
}

export interface References {
  /** [pairs] */
  sums: ReferenceSums[];
  /** What stages are keyed by. */
  hash: string;
  totals: LedgerTotals;
}

/** Equal for all strategies, so that what they train on equal pairs is one stage. */
export function trainingSeed(context: RunContext, position: Position): number {
  return deriveSeed(context.settings.seed, "training", position.iteration);
}

/** Reference log-probs of pairs under a model: one scoring pass, kept under the hash of model and pairs. */
export async function referenceStage(
  context: RunContext,
  plan: { model: ModelRef; pairs: PairSet; position: Position },
): Promise<References> {
  const { model, pairs } = plan;
  const { maxTokens, batchPairs, shuffle } = context.settings.training;
  const options = { maxTokens, batchPairs, shuffle, seed: trainingSeed(context, plan.position) };
  const { result, folder } = await runStage<{ references: SealedRows; totals: LedgerTotals }>(context, {
    kind: "reference",
    label: `reference log-probs of ${model.name}`,
    total: pairs.list.length,
    unit: "pairs",
    position: plan.position,
    inputs: { model: model.hash, pairs: pairs.hash, options },
    compute: async (stage, progress) => {
      const { engine } = await context.host.use(model);
      const meter = new Meter(engine.config);
      const log = await RowLog.open<PairReference>(stage, "references", { place: ({ pair }) => pair });
      try {
        await scoreReferences({
          engine,
          rows: pairs.list,
          options,
          onSums: async (pair, sums) => {
            await log.add({ pair, ...sums });
          },
          onProgress: (done) => progress(done),
          onForest: (forest) => meter.score(forest),
          signal: context.signal,
        });
      } finally {
        await log.close();
      }
      return { references: await log.seal(), totals: meter.totals };
    },
  });
  const sums: ReferenceSums[] = [];
  for await (const { chosen, rejected } of sealedRows<PairReference>(folder, "references", result.references)) {
    sums.push({ chosen, rejected });
  }
  return { sums, hash: result.references.hash, totals: result.totals };
}
