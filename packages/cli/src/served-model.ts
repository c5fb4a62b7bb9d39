import { type Engine, rootCount } from "@tempora/engine";
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

/** The same model through one of its engine's adapters, under a name of its own; null for the base alone. */
export function throughAdapter(model: ServedModel, engine: Engine, adapter: string | null): ServedModel {
  return {
    ...model,
    ...(adapter === null || adapter === model.name ? {} : { name: adapter, base: model.name }),
    engine: {
      config: engine.config,
      dtype: engine.dtype,
      deviceName: engine.deviceName,
      memory: () => engine.memory(),
      batch: (options) => engine.batch({ ...options, adapter }),
      logProbs: (forest, options) => {
        const rootAdapters = new Array<string | null>(rootCount(forest)).fill(adapter);
        return engine.logProbs({ ...forest, rootAdapters }, options);
      },
    },
  };
}
