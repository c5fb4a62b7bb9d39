/** Ids of the special tokens; 0 to 255 are bytes. */
export const byteStartId = 256;
export const byteEndId = 257;

/** Of a model with this tokenizer that computes in an instant: a config as the engine takes it. */
export const byteModelConfig = {
  family: "llama" as const,
  vocabSize: 260,
  hiddenSize: 32,
  intermediateSize: 48,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  normEps: 1e-5,
  tiedHead: false,
  qkvBias: false,
  outputBias: false,
  qkNorm: false,
  windows: [0, 0],
  ropeTheta: 10_000,
  ropeScaling: null,
  maxPositions: 512,
};

/** GPT-2's names of the 256 bytes. */
export function byteNames(): string[] {
  let next = 256;
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

const special = ["<|im_start|>", "<|im_end|>"];

/** tokenizer.json and tokenizer_config.json: every byte a token, conversations as ChatML has them. */
export function byteTokenizerFiles(): { tokenizer: object; config: Record<string, unknown> } {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const tokenizer = {
    version: "1.0",
    added_tokens: special.map((content, i) => ({ id: byteStartId + i, content, special: true, normalized: false })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", vocab: Object.fromEntries(byteNames().map((name, id) => [name, id])), merges: [] },
  };
  const chatTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}" +
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
  return { tokenizer, config: { eos_token: special[1], chat_template: chatTemplate } };
}
