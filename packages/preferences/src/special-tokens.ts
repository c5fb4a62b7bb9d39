/** Names between <…> or […] that chat formats give a meaning, besides those with a bar, as <|im_end|>. */
const angled = "s|bos|eos|pad|unk|sop|eop|start_of_turn|end_of_turn|start_of_image|end_of_image|BOS_TOKEN|EOS_TOKEN";
const squared = "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|gMASK|sMASK";

const beginnings = new RegExp(
  [
    // <|im_end|>, <|turn>, <turn|>, and DeepSeek's with the wide bar.
    "<(?=[|｜][^<>\\n]{1,64}>|[^\\s<>|｜]{1,64}[|｜]>)",
    `<(?=/?(?:${angled})>)`,
    "<(?=</?SYS>>)",
    `\\[(?=/?(?:${squared})\\])`,
  ].join("|"),
  "gi",
);

/**
 * The text with a space behind the bracket that begins what is usually a special token: `< |im_end|>`. For servers whose
 * tokenizer is not known here, which may read such tokens in the text of a message.
 */
export function disarmSpecialTokens(text: string): string {
  return text.replace(beginnings, "$& ");
}
