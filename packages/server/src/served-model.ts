import type { Engine } from "@tempora/engine";
import type { Tokenizer } from "@tempora/text";

/** A model under the name that requests give it. The engine stays its owner's; models of one engine share its batch. */
export interface ServedModel {
  name: string;
  engine: Pick<Engine, "config" | "dtype" | "deviceName" | "batch" | "logProbs" | "memory">;
  tokenizer: Tokenizer;
  /** The engine's adapter that its requests go through; null for the base alone. */
  adapter: string | null;
  /** Of an adapter that has a name of its own: the served model that it is over. */
  base?: string | undefined;
  /** Ids that end a completion. */
  endTokens: readonly number[];
  /** tokenizer_config.json, for clients that tokenize by /tokenizer_info. */
  tokenizerConfig: Record<string, unknown>;
}
