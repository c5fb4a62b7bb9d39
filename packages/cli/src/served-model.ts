import type { Engine } from "@tempora/engine";
import { isObject } from "@tempora/errors";
import type { ServedModel } from "@tempora/server";
import type { OpenModel } from "./model.ts";

/** A loaded model as the server takes it, through one of its engine's adapters or none. */
export async function servedModel(
  model: OpenModel,
  engine: Engine,
  name: string,
  adapter: string | null,
): Promise<ServedModel> {
  const text = await model.checkpoint.companion("tokenizer_config.json");
  const value: unknown = text === null ? {} : JSON.parse(new TextDecoder().decode(text));
  const template = await model.checkpoint.companion("chat_template.jinja");
  const config = {
    ...(isObject(value) ? value : {}),
    ...(template === null ? {} : { chat_template: new TextDecoder().decode(template) }),
  };
  const [tokenizer, endTokens] = [await model.tokenizer(), await model.endTokens()];
  return { name, engine, adapter, tokenizer, endTokens, tokenizerConfig: config };
}

/** The same model through an adapter of its engine, under a name of its own. */
export function throughAdapter(model: ServedModel, adapter: string): ServedModel {
  return { ...model, name: adapter, adapter, base: model.name };
}
