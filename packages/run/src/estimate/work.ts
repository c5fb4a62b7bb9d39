import type { ModelConfig } from "@tempora/engine";
import type { JudgeTemplate } from "@tempora/preferences";
import type { Tokenizer } from "@tempora/text";
import { prefixForest } from "@tempora/training";
import { answerPaths } from "../judges/answer-paths.ts";
import { attendedPositions, forestWork, forwardFlops, Meter, noTokens } from "../results/ledger.ts";
import type { LedgerTotals } from "../results/results.ts";
import { judgePromptIds, promptIds } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";

/** A task as the stages compute it: only its lengths count, and what its prompts share. */
export interface TaskLengths {
  promptIds: readonly number[];
  /** Tokens of the longest answer that has room behind the prompt. */
  answer: number;
  /** The judge's prompt before the answer, and how many tokens it has behind it; null where no model of ours judges. */
  judge: { prefix: readonly number[]; after: number } | null;
}

export interface LengthOptions {
  tokenizer: Tokenizer;
  template: JudgeTemplate | null;
  maxNewTokens: number;
  maxPositions: number;
  now: Date;
}

/** Lengths of a task with answers of the full length. */
export function taskLengths(task: Task, options: LengthOptions): TaskLengths {
  const { tokenizer, template, maxNewTokens, maxPositions, now } = options;
  const ids = promptIds(task, tokenizer, { maxLength: maxPositions, now });
  const answer = Math.max(1, Math.min(maxNewTokens, maxPositions - ids.length));
  if (template === null) return { promptIds: ids, answer, judge: null };
  const ask = (text: string) =>
    judgePromptIds(template, { promptText: task.text, text, variables: task.variables }, tokenizer, now);
  const [one, other] = [ask("a"), ask("1")];
  let shared = 0;
  while (shared < one.length && one[shared] === other[shared]) shared++;
  return { promptIds: ids, answer, judge: { prefix: one.slice(0, shared), after: one.length - shared } };
}

/** What a stage computes in whole forests, and what it decodes a token at a time. */
export interface Generated {
  read: LedgerTotals;
  decoded: LedgerTotals;
}

/** Counts a run's stages by the formulas of the ledger, with every answer as long as it may be. */
export class StageWork {
  constructor(readonly config: ModelConfig) {}

  /** `samples` answers to each task. */
  answers(tasks: readonly TaskLengths[], samples: number): Generated {
    const read = new Meter(this.config);
    const meter = new Meter(this.config);
    if (tasks.length > 0) read.prompts(prefixForest(tasks.map((task) => task.promptIds)).forest);
    for (const { promptIds: ids, answer } of tasks) {
      for (let k = 0; k < samples; k++) meter.generated(ids.length, answer, "answer");
    }
    return { read: read.totals, decoded: meter.totals };
  }

  /** Judgements in words of `responses` answers to each task, `judgements` of each, of `tokens` tokens at most. */
  sampled(
    tasks: readonly TaskLengths[],
    { responses, judgements, tokens }: { responses: number; judgements: number; tokens: number },
  ): Generated {
    const meter = new Meter(this.config);
    const { totals, lengths } = this.#read(tasks, responses);
    for (const length of lengths) {
      const room = Math.max(0, Math.min(tokens, this.config.maxPositions - length));
      for (let k = 0; k < responses * judgements; k++) meter.generated(length, room, "judgement");
    }
    const read = { ...noTokens(), promptTokens: totals.tokens, flops: totals.flops };
    return { read, decoded: meter.totals };
  }

  /** Scores read from the probabilities of the template's answers: one pass, in forests of at most maxTokens tokens. */
  expected(
    tasks: readonly TaskLengths[],
    options: { responses: number; template: JudgeTemplate; tokenizer: Tokenizer; maxTokens: number },
  ): LedgerTotals {
    const { responses, template, tokenizer, maxTokens } = options;
    const { totals } = this.#read(tasks, responses);
    const { prefix, paths } = answerPaths(template, tokenizer);
    const own = paths.reduce((sum, { ids }) => sum + ids.length, prefix.length);
    const answerTokens = own * tasks.length * responses;
    // Every forest computes anew what its prompts share with those of the one before.
    const longest = tasks.reduce((most, { judge }) => Math.max(most, judge?.prefix.length ?? 0), 0);
    const again = Math.floor((totals.tokens + answerTokens) / maxTokens) * longest;
    const flops = forwardFlops(this.config, { tokens: answerTokens + again, attended: 0, headRows: answerTokens });
    return { ...noTokens(), scoredTokens: totals.tokens + answerTokens + again, flops: totals.flops + flops };
  }

  /** The judge's prompts with `responses` answers each: what prompts share is computed once. */
  #read(tasks: readonly TaskLengths[], responses: number) {
    const judged = tasks.flatMap((task) => (task.judge === null ? [] : [{ ...task, judge: task.judge }]));
    if (judged.length === 0 || responses === 0) return { totals: { tokens: 0, flops: 0 }, lengths: [] };
    const work = {
      ...forestWork(this.config, prefixForest(judged.map(({ judge }) => judge.prefix)).forest),
      headRows: 0,
    };
    const lengths = judged.map(({ judge, answer }) => {
      const own = answer + judge.after;
      work.tokens += responses * own;
      work.attended += responses * attendedPositions(this.config, judge.prefix.length, own);
      return judge.prefix.length + own;
    });
    return { totals: { tokens: work.tokens, flops: forwardFlops(this.config, work) }, lengths };
  }

  /** A pair of each task, in one scoring pass. */
  scoredPairs(tasks: readonly TaskLengths[]): LedgerTotals {
    const { tokens, flops } = this.#pairs(tasks);
    return { ...noTokens(), scoredTokens: tokens, flops };
  }

  /** A pair of each task in every epoch, and `replayed` rows of `replayedTokens` tokens in all. */
  trainedPairs(
    tasks: readonly TaskLengths[],
    options: { epochs: number; passes: number; replayedTokens: number },
  ): LedgerTotals {
    const { epochs, passes, replayedTokens } = options;
    const { tokens, flops } = this.#pairs(tasks);
    const replay = this.rows(replayedTokens);
    return {
      ...noTokens(),
      trainedTokens: epochs * tokens + replayedTokens,
      flops: passes * (epochs * flops + replay),
    };
  }

  /** FLOPs of a forward pass over rows of `tokens` tokens in all, their attention left out. */
  rows(tokens: number): number {
    return forwardFlops(this.config, { tokens, attended: 0, headRows: tokens });
  }

  #pairs(tasks: readonly TaskLengths[]): { tokens: number; flops: number } {
    const work = { tokens: 0, attended: 0, headRows: 0 };
    for (const { promptIds: ids, answer } of tasks) {
      work.tokens += ids.length + 2 * answer;
      work.attended +=
        attendedPositions(this.config, 0, ids.length) + 2 * attendedPositions(this.config, ids.length, answer);
      work.headRows += 2 * answer;
    }
    return { tokens: work.tokens, flops: forwardFlops(this.config, work) };
  }
}
