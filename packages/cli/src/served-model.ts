import type { Engine } from "@tempora/engine";
import { isObject } from "@tempora/errors";
import type { ServedModel } from "@tempora/server";
import type { OpenModel } from "./model.ts";

/** A loaded model as the server takes it. */
export async function servedModel(model: OpenModel, engine: Engine, name: string): Promise<ServedModel> {
  const text = await model.checkpoint.companion("tokenizer_config.json");
  const value: unknown = text === null ? {} : JSON.parse(new TextDecoder().decode(text));
  const template = await model.checkpoint.companion("chat_template.jinja");
  const config = {
    ...(isObject(value) ? value : {}),
    ...(template === null ? {} : { chat_template: new TextDecoder().decode(template) }),
  };
  const [tokenizer, endTokens] = [await model.tokenizer(), await model.endTokens()];
  return { name, engine, tokenizer, endTokens, tokenizerConfig: config };
}
