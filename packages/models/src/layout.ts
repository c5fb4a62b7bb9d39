import { basename, dirname, join, resolve } from "node:path";

/** Files that make a tokenizer, in the names Hugging Face gives them. */
export const tokenizerFiles = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
  "chat_template.json",
] as const;

/** Files that a new checkpoint takes over from the one it was trained from. */
export const companionFiles = [...tokenizerFiles, "generation_config.json"] as const;

/** Where a checkpoint is written before it takes its place. */
export function partialFolder(folder: string): string {
  return join(dirname(resolve(folder)), `.${basename(resolve(folder))}.partial`);
}

/** Where the checkpoint that is being replaced waits for a moment. */
export function replacedFolder(folder: string): string {
  return join(dirname(resolve(folder)), `.${basename(resolve(folder))}.replaced`);
}
