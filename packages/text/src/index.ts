export { readAllRows, readRows } from "./datasets.ts";
export { writeJson, writeJsonl, writeWhole, writeWholeStream } from "./files.ts";
export { JsonlLog, type LogRow, logRows } from "./jsonl-log.ts";
export {
  type CompletionRow,
  completionRow,
  type PreferenceRow,
  type PromptRow,
  preferenceRow,
  promptRow,
} from "./rows.ts";
export { type TokenizeOptions, tokenizeCompletion, tokenizePreference, tokenizePrompt } from "./tokenize.ts";
export { Tokenizer } from "./tokenizer.ts";
export type { Conversation, Message, SourceRow } from "./types.ts";
