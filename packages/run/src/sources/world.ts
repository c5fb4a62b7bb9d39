import { TemporaError } from "@tempora/errors";
import { createWorld, type World, type WorldPrompt, type WorldRow, worldDefaults } from "@tempora/world";
import { settingsTemplate } from "../settings/judge-template.ts";
import { paperSettings, type Settings } from "../settings/settings.ts";
import type { Example, Task, TaskSource } from "./source.ts";

/** Graded examples that the loop replays: the first of those that M0 learned from. */
const replayExamples = 2048;

/** Settings of the default run, in the embedded world. */
export function worldSettings(): Settings {
  const { sft, loop, evaluation } = worldDefaults;
  const answers = { temperature: loop.temperature, topP: loop.topP, topK: 0, maxNewTokens: loop.maxAnswerTokens };
  const { judge, training, loss, start } = paperSettings;
  return {
    ...paperSettings,
    strategy: "temporal",
    baselines: ["self-rewarding"],
    iterations: loop.iterations.temporal,
    promptsPerIteration: loop.promptsPerIteration,
    candidates: loop.candidates,
    sampling: answers,
    judge: {
      ...judge,
      judgements: loop.judgements,
      sampling: { ...answers, temperature: loop.judgementTemperature, maxNewTokens: loop.maxJudgementTokens },
    },
    loss: { ...loss, terms: [{ type: loop.loss, weight: 1 }], beta: loop.beta, sftWeight: loop.sftWeight },
    training: {
      ...training,
      learningRate: loop.learningRate,
      scheduler: loop.scheduler,
      warmupSteps: 0,
      batchPairs: loop.batchPairs,
      epochs: loop.epochs,
      maxTokens: 4096,
    },
    replay: { weight: loop.replayWeight, perStep: loop.replayRows, data: null },
    start: {
      ...start,
      demonstrations: sft.steps * sft.batchDemonstrations,
      gradedExamples: sft.steps * sft.batchGraded,
      training: {
        ...start.training,
        learningRate: sft.learningRate,
        scheduler: sft.scheduler,
        warmupSteps: sft.warmupSteps,
        weightDecay: sft.weightDecay,
        maxGradNorm: sft.maxGradNorm,
        batchPairs: sft.batchDemonstrations + sft.batchGraded,
        maxTokens: 8192,
        // The examples are drawn independently: their order is random already, and half of each batch is of each kind.
        shuffle: false,
      },
    },
    evaluation: {
      prompts: evaluation.prompts,
      judgedPrompts: evaluation.judgedPrompts,
      sampling: answers,
      judgements: loop.judgements,
    },
    generation: { maxRows: 512, maxCacheTokens: 65536 },
    engine: { device: "auto", dtype: "f32", threads: 0, quantize: null, moments: "f32" },
  };
}

/** The embedded world as a source of tasks. Its content depends on the run's seed. */
export function worldSource(settings: Settings): TaskSource {
  const world = createWorld({ seed: settings.seed });
  const prompts = new Map<string, WorldPrompt>();
  const task = (prompt: WorldPrompt): Task => {
    prompts.set(prompt.id, prompt);
    return { id: prompt.id, prompt: [{ role: "user", content: prompt.text }], text: prompt.text, columns: {} };
  };
  return {
    start: {
      kind: "new",
      deviation: worldDefaults.sft.initialDeviation,
      config: world.modelConfig(),
      files: world.tokenizerFiles(),
      data: {
        count: settings.start.demonstrations + settings.start.gradedExamples,
        identity: { world: settings.seed, ift: settings.start.demonstrations, eft: settings.start.gradedExamples },
        rows: () => startData(world, settings.start),
        some: (count) => startData(world, shareOf(settings.start, count)),
      },
    },
    judgeTemplate: settingsTemplate(settings) ?? world.judgeTemplate,
    replay: settings.replay.weight > 0 ? world.gradedExamples(replayExamples).map(example) : [],
    training: (iteration, count) => world.prompts("train", count, iteration * count).map(task),
    heldOut: () => world.prompts("heldout", settings.evaluation.prompts).map(task),
    trueScore: ({ id }, answer) => {
      const prompt = prompts.get(id);
      if (prompt === undefined) {
        throw new TemporaError(`The world did not make the prompt ${id}`, {
          remedy: "Grade only the world's prompts.",
        });
      }
      return world.trueScore(prompt, answer);
    },
  };
}

type StartCounts = Pick<Settings["start"], "demonstrations" | "gradedExamples">;

/** So many of both together at most. */
function shareOf({ demonstrations, gradedExamples }: StartCounts, count: number): StartCounts {
  const share = Math.min(1, count / Math.max(1, demonstrations + gradedExamples));
  return {
    demonstrations: Math.floor(share * demonstrations),
    gradedExamples: Math.floor(share * gradedExamples),
  };
}

/** Demonstrations and graded examples in turn, so that every batch holds both in their proportion. */
function startData(world: World, { demonstrations, gradedExamples }: StartCounts): Example[] {
  const ift = world.demonstrations(demonstrations).map(example);
  const eft = world.gradedExamples(gradedExamples).map(example);
  if (ift.length === 0 || eft.length === 0) return [...ift, ...eft];
  const rows: Example[] = [];
  let taken = 0;
  ift.forEach((row, index) => {
    rows.push(row);
    const due = Math.floor(((index + 1) * eft.length) / ift.length);
    rows.push(...eft.slice(taken, due));
    taken = due;
  });
  return rows;
}

function example(row: WorldRow): Example {
  return { prompt: row.prompt, completion: row.completion };
}
