import { setImmediate } from "node:timers/promises";
import { TemporaError } from "@tempora/errors";
import { type JudgeTemplate, judgePromptParts } from "@tempora/preferences";
import {
  asCompletion,
  type Conversation,
  encodeUserTurn,
  type TokenizeOptions,
  type Tokenizer,
  tokenizeCompletion,
  tokenizePrompt,
} from "@tempora/text";
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
export function promptIds(task: Task, tokenizer: Tokenizer, options: TokenizeOptions): number[] {
  const row = { ...placeOf(task), ...variablesOf(task), prompt: asConversation(task.prompt, tokenizer) };
  return tokenizePrompt(row, tokenizer, options).promptIds;
}

/** What a judge reads beside its question. */
export interface JudgeRequest {
  promptText: string;
  text: string;
  /** The prompt's variables of the chat template. Its tools are in its text: the judge itself calls none. */
  variables?: Readonly<Record<string, unknown>> | undefined;
}

/** Token ids of the judge's prompt. Neither prompt nor response can break out of it, whatever they spell. */
export function judgePromptIds(
  template: JudgeTemplate,
  { promptText, text, variables = {} }: JudgeRequest,
  tokenizer: Tokenizer,
  now?: Date,
): number[] {
  const { tools: _, ...own } = variables;
  return encodeUserTurn(judgePromptParts(template, promptText, text), tokenizer, { variables: own, now });
}

function placeOf({ where }: Task | Example): { file: string; row: number } {
  return { file: where?.file ?? ownFile, row: where?.row ?? 0 };
}

function variablesOf({ variables }: Task | Example): { variables?: Record<string, unknown> } {
  return variables === undefined ? {} : { variables };
}

function exampleIds(example: Example, tokenizer: Tokenizer, options: TokenizeOptions): SupervisedRow {
  const place = placeOf(example);
  const prompt = asConversation(example.prompt, tokenizer);
  const { promptParts } = example;
  const parts = promptParts === undefined ? {} : { promptParts: [...promptParts] };
  const completion = asCompletion(prompt, example.completion);
  const row = { ...place, ...variablesOf(example), prompt, ...parts, completion };
  return { ...tokenizeCompletion(row, tokenizer, options), where: place };
}

/** Token ids of many examples. Lets other work in between, so that progress shows and a stop is noticed. */
export async function manyExampleIds(
  examples: readonly Example[],
  tokenizer: Tokenizer,
  options: TokenizeOptions,
  signal: AbortSignal | undefined,
): Promise<SupervisedRow[]> {
  const rows: SupervisedRow[] = [];
  for (const example of examples) {
    if (rows.length % 1000 === 0) {
      await setImmediate();
      signal?.throwIfAborted();
    }
    rows.push(exampleIds(example, tokenizer, options));
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
  asked: { prompt: Conversation; variables?: Readonly<Record<string, unknown>> },
  answer: SampledText,
  tokenizer: Tokenizer,
  now?: Date,
): boolean {
  const row = {
    prompt: asked.prompt,
    variables: { ...asked.variables },
    file: ownFile,
    row: 0,
    completion: asCompletion(asked.prompt, answer.text),
  };
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
