import { asCompletion, type Conversation, templateColumns } from "@tempora/text";

/** What every file of pairs holds of each, TRL's columns first. */
export interface PairColumns {
  prompt: Conversation;
  chosen: Conversation;
  rejected: Conversation;
  tools?: unknown;
  chat_template_kwargs?: unknown;
  /** What was read and sampled. Left out where the answers came as text only. */
  prompt_ids?: readonly number[];
  chosen_ids?: readonly number[];
  rejected_ids?: readonly number[];
  /** The text, through chat template and tokenizer, does not give these ids again. Left out where it does. */
  text_differs?: true;
  phase: number;
  chosen_score: number;
  rejected_score: number;
}

/** One side of a pair. */
export interface PairSide {
  text: string;
  score: number;
  ids?: readonly number[] | undefined;
  textDiffers: boolean;
}

/** The columns of a pair. Ids go in when prompt and both sides have them. */
export function pairColumns(
  prompt: {
    conversation: Conversation;
    variables: Readonly<Record<string, unknown>>;
    ids?: readonly number[] | undefined;
  },
  chosen: PairSide,
  rejected: PairSide,
  phase: number,
): PairColumns {
  const { conversation, variables, ids } = prompt;
  const known =
    ids === undefined || chosen.ids === undefined || rejected.ids === undefined
      ? null
      : { prompt_ids: ids, chosen_ids: chosen.ids, rejected_ids: rejected.ids };
  return {
    prompt: conversation,
    chosen: asCompletion(conversation, chosen.text),
    rejected: asCompletion(conversation, rejected.text),
    ...templateColumns(variables),
    ...known,
    ...(known !== null && (chosen.textDiffers || rejected.textDiffers) ? { text_differs: true as const } : {}),
    phase,
    chosen_score: chosen.score,
    rejected_score: rejected.score,
  };
}
