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

/** By the kind of command: `train`; `sft` and `dpo`; those that only compute answers or log-probs. */
type Hints = Partial<Record<"train" | "training" | "computing", string>>;

const batch = "the rows of an optimizer step, however many a device takes at once";
const context = "Rows are never cut: --skip-too-long leaves out those that the model's context does not hold";
const dtype = "--dtype bf16 is what it is called here.";
const adapter = "An adapter is trained with --lora-rank 16.";
const quantized = "4 bits are --quantize nf4.";

/** What helps whoever uses a word of Hugging Face's trainers whose value means something else here, or nothing. */
const hints: Readonly<Record<string, Hints>> = {
  "--per-device-train-batch-size": {
    train: `--set training.batchPairs=16 gives ${batch}.`,
    training: `--batch-pairs gives ${batch} (per device × accumulation there); --max-tokens bounds the memory.`,
  },
  "--gradient-accumulation-steps": {
    train: `--set training.batchPairs=16 gives ${batch}; --set training.maxTokens=8192 bounds the memory.`,
    training: `--batch-pairs gives ${batch} (per device × accumulation there); --max-tokens bounds the memory.`,
  },
  "--warmup-ratio": {
    train: "--set training.warmupSteps=10 gives the steps; without it they are a tenth of all.",
    training: "--warmup-steps gives their number; without it they are a tenth of all.",
  },
  "--max-length": {
    train: `${context}; --max-new-tokens is the longest answer.`,
    training: `${context}; --max-tokens bounds the memory of a step.`,
    computing: "--max-new-tokens is the longest answer.",
  },
  "--bf16": { train: dtype, training: dtype, computing: dtype },
  "--fp16": { train: dtype, training: dtype, computing: dtype },
  "--torch-dtype": { train: dtype, training: dtype, computing: dtype },
  "--max-steps": {
    train: "--epochs gives the passes over the pairs of a phase.",
    training: "--epochs gives the passes over the data.",
  },
  "--optim": {
    train: "--optimizer adamw_8bit is what it is called here.",
    training: "--optimizer adamw_8bit is what it is called here.",
  },
  "--report-to": { train: "--log-to names where metrics go.", training: "--log-to names where metrics go." },
  "--logging-steps": {
    train: "Every step is in events.jsonl of the run's folder, and goes where --log-to says.",
    training: "Every step is in the file of --metrics, and goes where --log-to says.",
  },
  "--use-peft": { train: adapter, training: adapter },
  "--lora-r": { train: adapter, training: adapter },
  "--lora-target-modules": {
    train: "--lora-targets q_proj,v_proj names them.",
    training: "--lora-targets q_proj,v_proj names them.",
  },
  "--load-in-4bit": { train: quantized, training: quantized, computing: quantized },
  "--num-generations": { train: "--candidates is their number.", computing: "generate has --n." },
  "--dataset-name": { train: "--prompts names the file of prompts.", training: "--data names the file." },
  "--train-file": { train: "--prompts names the file of prompts.", training: "--data names the file." },
  "--resume-from-checkpoint": {
    train: "The same command again goes on where it stopped.",
    training: "The same command again goes on where it stopped.",
  },
  // Ours, which `train` has as settings only.
  "--out": { train: "--runs names the folder of all runs, --run the name of this one." },
  "--scheduler": { train: "--set training.scheduler=cosine sets it." },
  "--warmup-steps": { train: "--set training.warmupSteps=10 sets them." },
  "--weight-decay": { train: "--set training.weightDecay=0.1 sets it." },
  "--max-grad-norm": { train: "--set training.maxGradNorm=1 sets it." },
  "--batch-pairs": { train: "--set training.batchPairs=16 sets them." },
  "--max-tokens": { train: "--set training.maxTokens=8192 sets them." },
  "--label-smoothing": { train: "--set loss.labelSmoothing=0.1 sets it." },
  "--top-p": { train: "--set sampling.topP=0.9 sets it." },
  "--top-k": { train: "--set sampling.topK=50 sets it." },
  "--retries": { train: "--set judge.retries=1 sets them." },
  "--data": { train: "--prompts names the file of prompts." },
};

const synonyms: Readonly<Record<string, string>> = {
  "--max-seq-length": "--max-length",
  "--max-prompt-length": "--max-length",
  "--model-max-length": "--max-length",
  "--train-batch-size": "--per-device-train-batch-size",
  "--batch-size": "--per-device-train-batch-size",
};

export const hintedWords: readonly string[] = [...Object.keys(hints), ...Object.keys(synonyms)];

/** What stands for an option that the command does not know; null: nothing that we know. */
export function hintFor(option: string, command: string): string | null {
  const name = option.replace(/=[\s\S]*$/, "").replaceAll("_", "-");
  const found = hints[synonyms[name] ?? name] ?? {};
  const kind = command === "train" ? "train" : ["sft", "dpo"].includes(command) ? "training" : "computing";
  return found[kind] ?? null;
}
