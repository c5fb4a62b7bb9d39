import { describe, expect, it } from "vitest";
import type { Context } from "./context.ts";
import { describeFailure } from "./failure.ts";
import { createProgram } from "./program.ts";

describe("an option without its value", () => {
  it.each([
    [["sft", "--data", "--model", "M", "--out", "x"], /--data <file>' .* It has no value: --model is the next option/],
    [["generate", "--model", "M", "--prompt", "--n", "2"], /--prompt <text.*' .* It has no value: --n is the next/],
    [["sft", "--epochs", "--lr", "1"], /--epochs <count>' .* It has no value: --lr is the next option/],
    [["train", "--set", "--dry-run"], /--set <setting=value>' .* It has no value: --dry-run is the next option/],
  ])("is named, and the option behind it is not taken for the value: %j", async (argv, message) => {
    const error: unknown = await createProgram({} as Context)
      .parseAsync(argv, { from: "user" })
      .catch((thrown: unknown) => thrown);
    expect(describeFailure(error, argv[0] as string).what).toMatch(message);
  });

  it("is none where its value begins with a dash", () => {
    const generate = createProgram({} as Context).commands.find((command) => command.name() === "generate");
    generate?.action(() => undefined);
    generate?.parse(["--prompt", "-1 + 2?", "two", "--temperature", "1e-2", "--stop", "a", "--stop", "b"], {
      from: "user",
    });
    expect(generate?.opts()).toMatchObject({ prompt: ["-1 + 2?", "two"], temperature: 0.01, stop: ["a", "b"] });
  });
});
