import { cpSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { editJson, oracle, scratch } from "@tempora/testing";

/** A copy of the oracles' tokenizer folder, without weights, that a test may change. */
export async function copyTokenizer(
  edit: (config: Record<string, unknown>, tokenizer: Record<string, unknown>) => void = () => undefined,
): Promise<string> {
  const folder = join(await scratch(), "tokenizer");
  await mkdir(folder);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
    cpSync(oracle("llama", "policy", name), join(folder, name));
  }
  editJson(join(folder, "tokenizer_config.json"), (config) => {
    editJson(join(folder, "tokenizer.json"), (tokenizer) => edit(config, tokenizer));
  });
  return folder;
}
