/** What the arguments of transformers and TRL are called here. */
const words: Readonly<Record<string, string>> = {
  "--model-name-or-path": "--model",
  "--output-dir": "--out",
  "--learning-rate": "--lr",
  "--num-train-epochs": "--epochs",
  "--lr-scheduler-type": "--scheduler",
  "--loss-type": "--loss",
  "--max-completion-length": "--max-new-tokens",
};

/**
 * A command line with the flags of Hugging Face's trainers in our words: `--learning_rate=1e-6` is `--lr=1e-6`. Underscores
 * and dashes are the same, as there. Values are left alone.
 */
export function inOurWords(argv: readonly string[]): string[] {
  return argv.map((argument) => {
    const match = /^(--[a-z][a-z0-9_-]*)(=[\s\S]*)?$/.exec(argument);
    if (match === null) return argument;
    const name = (match[1] as string).replaceAll("_", "-");
    return `${words[name] ?? name}${match[2] ?? ""}`;
  });
}
