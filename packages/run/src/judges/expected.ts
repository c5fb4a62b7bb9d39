import { setImmediate } from "node:timers/promises";
import { type Forest, ForestBuilder } from "@tempora/engine";
import { type AnswerPath, answersOf, expectedScore, type JudgeAnswer, type JudgeTemplate } from "@tempora/preferences";
import { addPrefixes } from "@tempora/training";
import type { LoadedModel } from "../models/model-host.ts";
import { Meter } from "../results/ledger.ts";
import { templateJson } from "../settings/judge-template.ts";
import { judgePromptIds } from "../sources/conversation.ts";
import { RowLog } from "../store/row-log.ts";
import { answerPaths } from "./answer-paths.ts";
import { type Judge, type JudgedRows, type Judgement, type JudgeWork, judgementLog, type Response } from "./judge.ts";
import type { JudgeModel } from "./sampled.ts";
import { noRoom } from "./spoken.ts";

export interface ExpectedJudgeOptions {
  model: JudgeModel;
  template: JudgeTemplate;
  /** Tokens of a forest at most: what bounds the memory. */
  maxTokens: number;
}

/**
 * Reads the score from the model's probabilities instead of sampling judgements: one pass over rubric, prompt, response
 * and the answers that the template names. The mean of as many samples as one likes, for less than the price of one
 * (G-Eval, arXiv:2303.16634, weighs its scores so).
 */
export function expectedJudge(options: ExpectedJudgeOptions): Judge {
  const { model, template } = options;
  return {
    kind: "expected",
    name: model.name,
    origin: model.folder,
    // maxTokens decides which responses are computed together, and that the last bits.
    identity: {
      kind: "expected",
      judge: model.hash,
      template: templateJson(template),
      maxTokens: options.maxTokens,
    },
    scale: { min: 0, max: template.maxScore },
    perResponse: 1,
    deterministic: true,
    readsColumns: false,
    question: null,
    contextOf: (response, tokenizer) => {
      const { prefix, paths } = answerPaths(template, tokenizer);
      return judgePromptIds(template, response, tokenizer, model.now).length + answerLength(prefix, paths);
    },
    judge: (responses, work) => judgeByExpectation(options, responses, work),
  };
}

/** Token ids of a response's question up to the answer. */
interface Sequence {
  response: number;
  ids: number[];
}

/** A forest of some of the responses, with the scored nodes of each one's answers. */
interface Batch {
  forest: Forest;
  responses: number[];
  /** [responses][paths] */
  leaves: number[][];
}

async function judgeByExpectation(
  options: ExpectedJudgeOptions,
  responses: readonly Response[],
  work: JudgeWork,
): Promise<JudgedRows> {
  const loaded = await options.model.load();
  const { answers } = answersOf(options.template);
  const { prefix, paths } = answerPaths(options.template, loaded.tokenizer);
  const meter = new Meter(loaded.checkpoint.config);
  const log = await RowLog.open<Judgement>(work.folder, judgementLog.name, { place: judgementLog.place });
  try {
    work.progress(log.count);
    const tooLong: number[] = [];
    const sequences = sequencesOf(loaded, options, responses, answerLength(prefix, paths), tooLong);
    for (const asked of batches(sequences, prefix, paths, options.maxTokens)) {
      // Where an earlier process did most of it, there is nothing else to wait for.
      await setImmediate();
      work.signal?.throwIfAborted();
      const batch = buildBatch(asked, paths);
      meter.score(batch.forest);
      // All of a forest or nothing: what lies beside a response decides its last bits.
      if (asked.every(({ response }) => log.has(judgementLog.place(noRoom(response))))) continue;
      const { node } = await loaded.engine.logProbs(batch.forest, { signal: work.signal });
      for (const [k, response] of batch.responses.entries()) {
        const logProbs = (batch.leaves[k] as number[]).map((leaf) => node[leaf] as number);
        await log.add(judgementOf(response, answers, paths, logProbs));
      }
      await log.flush();
      work.progress(log.count);
    }
    for (const response of tooLong) await log.add(noRoom(response));
    return { rows: await log.seal(), totals: meter.totals };
  } finally {
    await log.close();
  }
}

/** The responses' questions one by one: of a million they are not kept. Those that the context has no room for go to `tooLong`. */
function* sequencesOf(
  { tokenizer, checkpoint }: LoadedModel,
  { model, template }: ExpectedJudgeOptions,
  responses: readonly Response[],
  answerTokens: number,
  tooLong: number[],
): Generator<Sequence> {
  const limit = checkpoint.config.maxPositions - answerTokens + 1;
  for (const [response, asked] of responses.entries()) {
    const ids = judgePromptIds(template, asked, tokenizer, model.now);
    if (ids.length < limit) yield { response, ids };
    else tooLong.push(response);
  }
}

function answerLength(prefix: readonly number[], paths: readonly AnswerPath[]): number {
  return prefix.length + Math.max(...paths.map(({ ids }) => ids.length));
}

/** Runs of responses whose forests hold at most maxTokens tokens; one that is longer has a forest of its own. */
function* batches(
  sequences: Iterable<Sequence>,
  prefix: readonly number[],
  paths: readonly AnswerPath[],
  maxTokens: number,
): Generator<Sequence[]> {
  const answerTokens = paths.reduce((sum, { ids }) => sum + ids.length, 0);
  let batch: Sequence[] = [];
  let tokens = 0;
  let before: readonly number[] = [];
  for (const { response, ids: question } of sequences) {
    const ids = [...question, ...prefix];
    const added = ids.length - commonLength(before, ids) + answerTokens;
    if (batch.length > 0 && tokens + added > maxTokens) {
      yield batch;
      batch = [];
      tokens = 0;
    }
    tokens += batch.length === 0 ? ids.length + answerTokens : added;
    batch.push({ response, ids });
    before = ids;
  }
  if (batch.length > 0) yield batch;
}

function commonLength(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

/** Tokens that sharing a beginning must save: less is not worth another node. */
const worthSharing = 8;

function buildBatch(asked: readonly Sequence[], paths: readonly AnswerPath[]): Batch {
  const builder = new ForestBuilder();
  const responses: number[] = [];
  const leaves: number[][] = [];
  const onEnd = (index: number, node: number) => {
    responses.push((asked[index] as Sequence).response);
    leaves.push(paths.map(({ ids }) => builder.share(ids, node, true)));
  };
  const sequences = asked.map(({ ids }) => ids);
  addPrefixes(builder, sequences, { worth: worthSharing, onEnd });
  return { forest: builder.build(), responses, leaves };
}

function judgementOf(
  response: number,
  answers: readonly JudgeAnswer[],
  paths: readonly AnswerPath[],
  logProbs: readonly number[],
): Judgement {
  const base = { response, attempt: 0, sample: 0, text: "", tokens: 0 };
  const expected = expectedScore(answers, paths, logProbs);
  if (expected === null) return { ...base, score: null, failure: "no-score" };
  const { score, probabilities, mass } = expected;
  return { ...base, score, failure: null, probabilities, mass };
}
