import { describe, expect, it } from "vitest";
import { inOurWords } from "./hugging-face-words.ts";

describe("Hugging Face's words", () => {
  it("stand for ours, with underscores or dashes, with the value behind an equals sign or a space", () => {
    expect(inOurWords(["dpo", "--learning_rate=1e-6", "--num-train-epochs", "2", "--gradient_checkpointing"])).toEqual([
      "dpo",
      "--lr=1e-6",
      "--epochs",
      "2",
      "--gradient-checkpointing",
    ]);
  });

  it("are all known that mean something here", () => {
    const words = ["model_name_or_path", "output-dir", "lr_scheduler_type", "loss_type", "max_completion_length"];
    const ours = ["--model", "--out", "--scheduler", "--loss", "--max-new-tokens"];
    expect(inOurWords(words.map((word) => `--${word}`))).toEqual(ours);
  });

  it("leave values and other words as they are", () => {
    const argv = ["train", "--set", "judge.model=my_model", "--prompts", "my_prompts.jsonl", "-h", "--data=a_b=c_d"];
    expect(inOurWords(argv)).toEqual(argv);
  });
});
