export { type Columns, parseColumns } from "./columns.ts";
export { type ReadOptions, readAllRows, readRows } from "./datasets.ts";
export { endTokens, withoutEnd } from "./end-tokens.ts";
export { writeJson, writeJsonl, writeWhole, writeWholeStream } from "./files.ts";
export type { RowKind } from "./formats.ts";
export { JsonlLog, type LineFormat, type LogReading, type LogRow, logRows } from "./jsonl-log.ts";
export { asCompletion, dayOf, dayText, type RenderOptions, shownText, templateColumns, withSystem } from "./render.ts";
export {
  type CompletionRow,
  completionRow,
  type PreferenceRow,
  type PromptRow,
  preferenceRow,
  promptRow,
} from "./rows.ts";
export { schemaFault } from "./schema-faults.ts";
export { TextStream } from "./text-stream.ts";
export { type TokenizeOptions, tokenizeCompletion, tokenizePreference, tokenizePrompt } from "./tokenize.ts";
export { Tokenizer } from "./tokenizer.ts";
export { ContextFit, TooLongError } from "./too-long.ts";
export type { Conversation, Message, SourceRow } from "./types.ts";
export { encodeParts, encodeUserTurn, partsText, type TextPart } from "./untrusted.ts";
