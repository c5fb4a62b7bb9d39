import { setImmediate } from "node:timers/promises";
import { TemporaError } from "@tempora/errors";
import type { Conversation, Tokenizer } from "@tempora/text";
import { asCompletion, tokenizeCompletion, tokenizePrompt } from "@tempora/text";
import type { SupervisedRow } from "@tempora/training";
import type { Example, Task } from "./source.ts";

/** Where a row of the run's own making stands, for messages. */
const ownFile = "(made by this run)";

/** A plain prompt becomes a user's turn where the model has a chat template: it was trained on turns. */
export function asConversation(prompt: Conversation, tokenizer: Tokenizer): Conversation {
  if (typeof prompt !== "string" || !tokenizer.hasChatTemplate) return prompt;
  return [{ role: "user", content: prompt }];
}

/** Token ids of a task's prompt. Throws where it leaves no room for an answer. */
export function promptIds(task: Task, tokenizer: Tokenizer, maxLength: number): number[] {
  const row = {
    file: task.where?.file ?? ownFile,
    row: task.where?.row ?? 0,
    prompt: asConversation(task.prompt, tokenizer),
  };
  return tokenizePrompt(row, tokenizer, { maxLength }).promptIds;
}

function exampleIds(example: Example, tokenizer: Tokenizer, maxLength: number): SupervisedRow {
  const place = { file: example.where?.file ?? ownFile, row: example.where?.row ?? 0 };
  const prompt = asConversation(example.prompt, tokenizer);
  const row = { ...place, prompt, completion: asCompletion(prompt, example.completion) };
  return { ...tokenizeCompletion(row, tokenizer, { maxLength }), where: place };
}

/** Token ids of many examples. Lets other work in between, so that progress shows and a stop is noticed. */
export async function manyExampleIds(
  examples: readonly Example[],
  tokenizer: Tokenizer,
  maxLength: number,
  signal: AbortSignal | undefined,
): Promise<SupervisedRow[]> {
  const rows: SupervisedRow[] = [];
  for (const example of examples) {
    if (rows.length % 1000 === 0) {
      await setImmediate();
      signal?.throwIfAborted();
    }
    rows.push(exampleIds(example, tokenizer, maxLength));
  }
  return rows;
}

/** An answer as it was sampled, and as text. */
export interface SampledText {
  promptIds: readonly number[];
  ids: readonly number[];
  text: string;
  /** Whether its last id is the token that ends it. */
  ended: boolean;
}

/**
 * Whether who trains on the text, through chat template and tokenizer, trains on the ids that were sampled. What a
 * template writes after the token that ends an answer is not counted: it is no part of the answer.
 */
export function textGivesIds(
  asked: { prompt: Conversation; variables?: Record<string, unknown> },
  answer: SampledText,
  tokenizer: Tokenizer,
  now?: Date,
): boolean {
  const row = { ...asked, file: ownFile, row: 0, completion: asCompletion(asked.prompt, answer.text) };
  try {
    const { promptIds, completionIds } = tokenizeCompletion(row, tokenizer, { now });
    if (!equalIds(promptIds, answer.promptIds)) return false;
    const own = answer.ended ? completionIds.slice(0, answer.ids.length) : completionIds;
    return equalIds(own, answer.ids);
  } catch (error) {
    // A text that gives no ids at all, as an empty one, gives other ids.
    if (error instanceof TemporaError) return false;
    throw error;
  }
}

function equalIds(one: readonly number[], other: readonly number[]): boolean {
  return one.length === other.length && one.every((id, k) => other[k] === id);
}
