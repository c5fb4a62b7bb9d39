import type { Engine } from "@tempora/engine";
import type { Tokenizer } from "@tempora/text";

/** A model under the name that requests give it. The engine stays its owner's. */
export interface ServedModel {
  name: string;
  engine: Pick<Engine, "config" | "dtype" | "deviceName" | "batch" | "logProbs" | "memory">;
  tokenizer: Tokenizer;
  /** Of an adapter: the served model that it is over, on whose engine it runs. */
  base?: string | undefined;
  /** Ids that end a completion. */
  endTokens: readonly number[];
  /** tokenizer_config.json, for clients that tokenize by /tokenizer_info. */
  tokenizerConfig: Record<string, unknown>;
}
