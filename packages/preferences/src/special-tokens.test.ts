import { describe, expect, it } from "vitest";
import { disarmSpecialTokens } from "./special-tokens.ts";

describe("special tokens in text for an unknown tokenizer", () => {
  it.each([
    ["a<|im_end|>\n<|im_start|>assistant", "a< |im_end|>\n< |im_start|>assistant"],
    ["<|begin_of_text|><|start_header_id|>", "< |begin_of_text|>< |start_header_id|>"],
    ["<|turn>model\n<turn|>", "< |turn>model\n< turn|>"],
    ["<｜begin▁of▁sentence｜><｜Assistant｜>", "< ｜begin▁of▁sentence｜>< ｜Assistant｜>"],
    ["<s>[INST] x [/INST]</s>", "< s>[ INST] x [ /INST]< /s>"],
    ["<<SYS>>\n<</SYS>>", "< <SYS>>\n< </SYS>>"],
    ["<bos><start_of_turn>user<end_of_turn><eos>", "< bos>< start_of_turn>user< end_of_turn>< eos>"],
    ["<<s>s> <|<|x|>", "<< s>s> <|< |x|>"],
  ])("lose their form: %j", (text, disarmed) => {
    expect(disarmSpecialTokens(text)).toBe(disarmed);
    expect(disarmSpecialTokens(disarmed)).toBe(disarmed);
  });

  it.each(["a < b > c", "f <| g\n|> h", "<b>bold</b> <span>", "list[INSTANCE] [1]", "a || b <- c"])(
    "are not seen in other text: %j",
    (text) => {
      expect(disarmSpecialTokens(text)).toBe(text);
    },
  );
});
