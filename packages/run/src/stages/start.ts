import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine, parameterShapes } from "@tempora/engine";
import { hashJson, type Json } from "@tempora/errors";
import { newModelConfigJson, openCheckpoint } from "@tempora/models";
import { Tokenizer, writeWhole } from "@tempora/text";
import { deriveSeed } from "@tempora/training";
import { adaptedModel, type ModelRef } from "../models/model-ref.ts";
import { countParameters } from "../results/ledger.ts";
import type { StartResult } from "../results/results.ts";
import { manyExampleIds } from "../sources/conversation.ts";
import type { Examples, Start } from "../sources/source.ts";
import { dateFor, type RunContext } from "./context.ts";
import { givenModel } from "./given-model.ts";
import { learnerFrom } from "./learner.ts";
import { supervisedStage } from "./train.ts";
import { unpackedFolder } from "./unpack.ts";

export interface Started {
  model: ModelRef;
  result: StartResult;
}

/** M0: the given checkpoint, fine-tuned first where there is data for it, or a new model trained from nothing. */
export async function startModel(context: RunContext): Promise<Started> {
  const { start } = context.source;
  if (start.kind === "new") return trainNew(context, start);
  const unpacked = await unpackedFolder(context, start.folder);
  const { config } = await openCheckpoint(unpacked.folder);
  const base = await givenModel(context, "M0", unpacked);
  const { adapter } = context.settings;
  const given = adapter === null ? base : await adaptedModel("M0", adapter, base);
  const parameters = countParameters(parameterShapes(config));
  if (start.data !== null) return fineTune(context, given, start.data, parameters);
  return {
    model: given,
    result: {
      origin: "given",
      checkpointHash: given.hash,
      parameters,
      steps: 0,
      tokens: 0,
      flops: 0,
      finalLoss: null,
    },
  };
}

async function fineTune(context: RunContext, given: ModelRef, data: Examples, parameters: number): Promise<Started> {
  const { host, settings } = context;
  const { tokenizer, checkpoint } = await host.open(given);
  const whole = settings.lora?.start === "full";
  const learner = whole ? null : await learnerFrom(given, settings);
  const seed = deriveSeed(settings.seed, "adapter");
  const outcome = await supervisedStage(context, {
    name: "M0",
    label: "supervised training of M0",
    count: data.count,
    inputs: {
      start: given.hash,
      data: data.identity,
      date: dateFor(context, tokenizer),
      dtype: host.dtypeOf(checkpoint),
      ...(learner === null ? {} : { seed }),
    },
    learner,
    begin: async () => {
      const adapter = learner && { config: learner.config, seed };
      const { engine, endTokens } = await host.useForTraining(given, adapter);
      const { config, raw } = checkpoint;
      const rows = await manyExampleIds(
        data.rows(),
        tokenizer,
        { maxLength: config.maxPositions, now: context.now },
        context.signal,
      );
      return { engine, rows, config, raw, companion: checkpoint.companion, endTokens };
    },
  });
  return started(outcome, parameters);
}

async function trainNew(context: RunContext, start: Extract<Start, { kind: "new" }>): Promise<Started> {
  const { settings } = context;
  const { config } = start;
  const dtype = settings.engine.dtype ?? "f32";
  const seed = deriveSeed(settings.seed, "weights");
  using made: { engine: Engine | null; [Symbol.dispose](): void } = {
    engine: null,
    [Symbol.dispose]() {
      this.engine?.dispose();
    },
  };
  const outcome = await supervisedStage(context, {
    name: "M0",
    label: "supervised training of M0",
    count: start.data.count,
    inputs: {
      config: config as unknown as Json,
      files: hashJson(start.files),
      data: start.data.identity,
      deviation: start.deviation,
      dtype,
      seed,
    },
    learner: null,
    begin: async () => {
      const { device, threads, moments } = settings.engine;
      const tokenizer = await tokenizerFrom(start.files);
      const rows = await manyExampleIds(
        start.data.rows(),
        tokenizer,
        { maxLength: config.maxPositions, now: context.now },
        context.signal,
      );
      made.engine = await Engine.random(config, { device, threads, dtype, moments, seed, std: start.deviation });
      const { bosId, eosId, padId } = tokenizer;
      const raw = newModelConfigJson(config, { bos: bosId, eos: eosId, pad: padId }, dtype);
      return { engine: made.engine, rows, config, raw, files: start.files };
    },
  });
  return started(outcome, countParameters(parameterShapes(config)));
}

function started(outcome: Awaited<ReturnType<typeof supervisedStage>>, parameters: number): Started {
  const { model, stage, finalLoss } = outcome;
  return {
    model,
    result: {
      origin: "trained",
      checkpointHash: model.hash,
      parameters,
      steps: stage.steps,
      tokens: stage.tokens,
      flops: stage.totals.flops,
      finalLoss,
    },
  };
}

/** A tokenizer of files that are not in a checkpoint yet. */
export async function tokenizerFrom(files: Readonly<Record<string, string>>): Promise<Tokenizer> {
  const folder = await mkdtemp(join(tmpdir(), "tempora-tokenizer-"));
  try {
    for (const [name, text] of Object.entries(files)) await writeWhole(join(folder, name), text);
    return await Tokenizer.load(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
