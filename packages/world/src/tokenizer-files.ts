import { special, vocabulary } from "./vocabulary.ts";

/**
 * The chat format: one token opens a user's turn, one the assistant's, one ends the assistant's. The generation prompt
 * is the token that opens the assistant's turn, so a prompt is always a prefix of the whole conversation.
 */
export const chatTemplate =
  "{% for message in messages %}" +
  `{% if message['role'] == 'assistant' %}{{ '${special.assistant}' + message['content'] + '${special.end}' }}` +
  `{% elif message['role'] == 'user' %}{{ '${special.user}' + message['content'] }}` +
  "{% else %}{{ raise_exception('Only user and assistant turns are supported') }}{% endif %}" +
  "{% endfor %}" +
  `{% if add_generation_prompt %}{{ '${special.assistant}' }}{% endif %}`;

/** tokenizer.json and tokenizer_config.json: whole words, split at white space; opens in transformers as it is. */
export function tokenizerFiles(): Record<string, string> {
  const specials = Object.values(special);
  const added = specials.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: "WhitespaceSplit" },
    post_processor: null,
    decoder: null,
    model: {
      type: "WordLevel",
      vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
      unk_token: special.unknown,
    },
  };
  const config = {
    added_tokens_decoder: Object.fromEntries(added.map(({ id, ...token }) => [id, token])),
    bos_token: null,
    chat_template: chatTemplate,
    clean_up_tokenization_spaces: false,
    eos_token: special.end,
    model_max_length: 128,
    pad_token: special.pad,
    tokenizer_class: "PreTrainedTokenizerFast",
    unk_token: special.unknown,
  };
  return {
    "tokenizer.json": `${JSON.stringify(tokenizer, null, 2)}\n`,
    "tokenizer_config.json": `${JSON.stringify(config, null, 2)}\n`,
  };
}
