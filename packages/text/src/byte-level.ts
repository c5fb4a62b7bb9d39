import { isObject } from "@tempora/errors";

type JsonObject = Record<string, unknown>;

/** GPT-2's pattern, which a ByteLevel pre-tokenizer uses by itself (tokenizers, pre_tokenizers/byte_level.rs). */
const gpt2Pattern = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/**
 * A tokenizer.json whose ByteLevel pre-tokenizer splits by a pattern that is written out. The library has the implied one
 * as a JavaScript literal, where \s knows U+FEFF and not U+0085; in Unicode, and so in Python, it is the other way round.
 * Patterns of the file it translates.
 */
export function withWrittenPattern(json: JsonObject): JsonObject {
  const splitter = json.pre_tokenizer;
  return isObject(splitter) ? { ...json, pre_tokenizer: written(splitter) } : json;
}

function written(splitter: JsonObject): JsonObject {
  if (splitter.type === "Sequence" && Array.isArray(splitter.pretokenizers)) {
    return {
      ...splitter,
      pretokenizers: splitter.pretokenizers.map((each) => (isObject(each) ? written(each) : each)),
    };
  }
  // A space put before the text would come before every piece.
  const implied = splitter.type === "ByteLevel" && splitter.use_regex !== false && splitter.add_prefix_space !== true;
  if (!implied) return splitter;
  const split = { type: "Split", pattern: { Regex: gpt2Pattern }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, { ...splitter, use_regex: false }] };
}
