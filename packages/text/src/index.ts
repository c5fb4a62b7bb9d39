export { readAllRows, readRows } from "./datasets.ts";
export { writeJson, writeJsonl, writeWhole } from "./files.ts";
export { JsonlLog } from "./jsonl-log.ts";
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
