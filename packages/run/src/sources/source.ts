import type { ModelConfig } from "@tempora/engine";
import type { Json, Place } from "@tempora/errors";
import type { JudgeTemplate } from "@tempora/preferences";
import type { Conversation, TextPart } from "@tempora/text";

/** One prompt that models answer. */
export interface Task {
  id: string;
  /** What the model reads. */
  prompt: Conversation;
  /** What the judge is shown of it. */
  text: string;
  /** Variables of the chat template: tools, and those of chat_template_kwargs. */
  variables?: Record<string, unknown>;
  /** All other columns of its row: ground truth, for a judge that can use it. */
  columns: Readonly<Record<string, unknown>>;
  where?: Place;
}

/** A {prompt, completion} example, as files hold them. */
export interface Example {
  prompt: Conversation;
  completion: Conversation;
  /** Of the prompt's last turn, where the row says which of its pieces are somebody else's text. */
  promptParts?: readonly TextPart[];
  variables?: Record<string, unknown>;
  where?: Place;
}

/** Examples that are made or read only when they are needed: a run that reuses M0 never sees them. */
export interface Examples {
  count: number;
  /** Decides the rows. */
  identity: Json;
  rows(): readonly Example[];
  /** So many at most, of their kinds in the same shares: to tell how long they are. */
  some(count: number): readonly Example[];
}

/** M0: a checkpoint, fine-tuned first where there is data, or the parts to train it from. */
export type Start =
  | { kind: "given"; folder: string; data: Examples | null }
  | {
      kind: "new";
      config: ModelConfig;
      /** Weights are drawn from normal(0, deviation). */
      deviation: number;
      /** Tokenizer files by name. */
      files: Record<string, string>;
      data: Examples;
    };

/** Where a run's prompts come from. The loop knows nothing else of them. */
export interface TaskSource {
  readonly start: Start;
  /** That the settings name or the checkpoint carries; null: the kind of judge has its own. */
  readonly judgeTemplate: JudgeTemplate | null;
  /** Graded examples (EFT) to replay beside the pairs; empty where there are none. */
  readonly replay: readonly Example[];
  /** Prompts of iteration `iteration` (0-based), disjoint from the others as far as there are enough. */
  training(iteration: number, count: number): readonly Task[];
  /** The same in every iteration, and never among those of training. */
  heldOut(): readonly Task[];
  /** True score in 0..5 by a program, only for reports; null where answers cannot be graded so. */
  readonly trueScore: ((task: Task, answer: string) => number) | null;
}
