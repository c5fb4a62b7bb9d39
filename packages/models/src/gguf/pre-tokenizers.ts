/** How a byte-level BPE splits text before it merges, as parts of a tokenizer.json. */
export interface PreTokenizer {
  /** Names in tokenizer.ggml.pre; the first one is written. */
  names: readonly [string, ...string[]];
  normalizer: { type: "NFC" } | null;
  /** Regular expression of a Split before the byte level; null for the byte level's own (GPT-2's). */
  split: string | null;
  /** Single digits are split off first. */
  digits: boolean;
  /** A word that is in the vocabulary is taken whole, whatever the merges say. */
  ignoreMerges: boolean;
  /** Whether a text begins with BOS where the metadata do not say. */
  addBos: boolean;
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const word = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const rest = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const lead = "[^\\r\\n\\p{L}\\p{N}]?";

/**
 * The pre-tokenizers that are known exactly: expressions and normalizers as in the models' own tokenizer.json, the names as
 * llama.cpp gives them (llama-vocab.cpp). Any other is refused: a near one gives other tokens without a word.
 */
export const preTokenizers: readonly PreTokenizer[] = [
  {
    names: ["llama-bpe", "llama3", "llama-v3"],
    normalizer: null,
    split: `${contractions}|${word}|\\p{N}{1,3}|${rest}`,
    digits: false,
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ["qwen2"],
    normalizer: { type: "NFC" },
    split: `${contractions}|${word}|\\p{N}|${rest}`,
    digits: false,
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: ["tekken"],
    normalizer: null,
    split: `${lead}${upper}*${lower}+|${lead}${upper}+${lower}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
    digits: false,
    ignoreMerges: true,
    addBos: true,
  },
  { names: ["smollm"], normalizer: null, split: null, digits: true, ignoreMerges: false, addBos: false },
  { names: ["gpt-2"], normalizer: null, split: null, digits: false, ignoreMerges: false, addBos: false },
];

/**
 * SmolLM's own tokenizer.json splits digits off before the byte level. A GGUF file does not carry that step, and transformers,
 * whose reading of the file is what ours is held to, goes without it: no merge joins digits, so the ids differ only where
 * several white spaces stand before a digit (llama.cpp, and SmolLM's own folder, merge them all). In a folder both are told apart.
 */
const readAs: Readonly<Record<string, string>> = { smollm: "gpt-2" };

/** The pre-tokenizer that a file's tokenizer.ggml.pre names, or undefined. */
export function preTokenizerNamed(name: string): PreTokenizer | undefined {
  return preTokenizers.find(({ names }) => names.includes(readAs[name] ?? name));
}

/** The `pre_tokenizer` of a tokenizer.json. */
export function preTokenizerJson({ split, digits }: PreTokenizer): Record<string, unknown> {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: split === null };
  if (split !== null) {
    const splitter = { type: "Split", pattern: { Regex: split }, behavior: "Isolated", invert: false };
    return { type: "Sequence", pretokenizers: [splitter, byteLevel] };
  }
  if (!digits) return byteLevel;
  return { type: "Sequence", pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel] };
}
