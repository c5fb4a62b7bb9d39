import { type JudgeTemplate, judgePromptParts } from "@tempora/preferences";
import { encodeUserTurn } from "@tempora/text";
import type { LoadedModel } from "../models/model-host.ts";
import type { Response } from "./judge.ts";

/**
 * Token ids of the judge's question about a response, in which prompt and response hold no special tokens, whatever they
 * spell; null where the context has no room for it and `room` more tokens.
 */
export function questionIds(
  template: JudgeTemplate,
  { promptText, text }: Pick<Response, "promptText" | "text">,
  { tokenizer, checkpoint }: Pick<LoadedModel, "tokenizer" | "checkpoint">,
  room = 1,
): number[] | null {
  const ids = encodeUserTurn(judgePromptParts(template, promptText, text), tokenizer);
  return ids.length + room <= checkpoint.config.maxPositions ? ids : null;
}
