import { paperSettings } from "@tempora/run";
import { describe, expect, it } from "vitest";
import type { Context } from "./context.ts";
import { describeFailure } from "./failure.ts";
import { hintedWords, hintFor, inOurWords } from "./hugging-face-words.ts";
import { createProgram } from "./program.ts";

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

describe("a word of Hugging Face that means something else here", () => {
  const program = createProgram({} as Context);
  /** What the user reads. */
  const told = async (argv: readonly string[]) => {
    const error: unknown = await program.parseAsync(inOurWords(argv), { from: "user" }).catch((thrown) => thrown);
    return describeFailure(error, argv[0] as string);
  };

  it.each([
    [["sft", "--per_device_train_batch_size", "4"], "--batch-pairs"],
    [["dpo", "--gradient_accumulation_steps=8"], "--batch-pairs"],
    [["sft", "--warmup_ratio", "0.1"], "--warmup-steps"],
    [["dpo", "--max_length", "1024"], "--skip-too-long"],
    [["generate", "--max_length", "1024"], "--max-new-tokens"],
    [["sft", "--bf16"], "--dtype bf16"],
    [["logprobs", "--bf16=true"], "--dtype bf16"],
    [["train", "--bf16"], "--dtype bf16"],
    [["train", "--per_device_train_batch_size", "4"], "--set training.batchPairs=16"],
    [["train", "--lr_scheduler_type", "cosine"], "--set training.scheduler=cosine"],
    [["train", "--output_dir", "x"], "--runs"],
  ])("is answered with ours: %j", async (argv, remedy) => {
    const { what, remedy: given } = await told(argv);
    expect(what).toMatch(/^Unknown option '--/);
    expect(given).toContain(remedy);
    expect(given).not.toContain("Did you mean");
  });

  it("is guessed where it is only misspelt", async () => {
    expect((await told(["sft", "--epoch", "1"])).remedy).toMatch(/Did you mean --epochs\?/);
  });

  it("is answered with options and settings that there are, and is none of them", () => {
    for (const name of ["train", "sft", "dpo", "generate"]) {
      const options = program.commands.find((command) => command.name() === name)?.options.map(({ long }) => long);
      for (const word of hintedWords) {
        const hint = hintFor(word, name);
        if (hint === null) continue;
        expect(options, `${name} ${word}`).not.toContain(word);
        for (const [option] of hint.matchAll(/--[a-z-]+/g)) expect(options, `${name} ${word}`).toContain(option);
        for (const [, path = ""] of hint.matchAll(/--set ([\w.]+)=/g)) expect(paperSettings).toHaveProperty(path);
      }
    }
  });
});
