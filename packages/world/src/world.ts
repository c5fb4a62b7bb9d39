import { createHash } from "node:crypto";
import { TemporaError } from "@tempora/errors";
import type { JudgeTemplate } from "@tempora/preferences";
import { judgePrompt } from "@tempora/preferences";
import { type WorldModelConfig, worldDefaults } from "./defaults.ts";
import { grade, judgement, total } from "./grade.ts";
import { spoil } from "./mistakes.ts";
import { Random } from "./random.ts";
import { makeTask, sentence, type Task } from "./tasks.ts";
import { tokenizerFiles } from "./tokenizer-files.ts";
import { type Kind, kinds, points, responseToken, rubricToken, vocabulary } from "./vocabulary.ts";

/**
 * Which prompts may be seen where: "sft" by M0's demonstrations and graded examples, "train" by the loop, "heldout" by
 * the evaluation. A prompt's content decides its split, so no prompt is ever in two of them, whatever the seeds.
 */
export type Split = "sft" | "train" | "heldout";

export interface WorldPrompt {
  /** A hash of the text. */
  id: string;
  kind: Kind;
  /** The instruction, tokens separated by spaces. */
  text: string;
  /** What answers are graded against. */
  check: Task;
}

export interface WorldMessage {
  role: "user" | "assistant";
  content: string;
}

export interface WorldRow {
  prompt: WorldMessage[];
  completion: WorldMessage[];
}

export interface WorldOptions {
  seed: number;
  /** Chance of a spoilt demonstration and of each further mistake; worldDefaults.corruption if left out. */
  corruption?: { chance: number; more: number };
}

export interface World {
  readonly seed: number;
  readonly judgeTemplate: JudgeTemplate;
  tokenizerFiles(): Record<string, string>;
  modelConfig(): WorldModelConfig;
  /**
   * Prompts number skip to skip + count − 1 of the split's fixed sequence of different prompts: chunks that do not
   * overlap in numbers do not overlap in content.
   */
  prompts(split: Split, count: number, skip?: number): WorldPrompt[];
  /** IFT: answers of mixed quality, on prompts of the split "sft". */
  demonstrations(count: number): WorldRow[];
  /** EFT: the judge's prompt and its right judgement, over answers of every quality, on prompts of the split "sft". */
  gradedExamples(count: number): WorldRow[];
  /** 0..5, by a program; only for reports, never for training. */
  trueScore(prompt: WorldPrompt, answer: string): number;
  /** The right judgement in the judge's format: "… kind=1 half=1 length=0 items=0 order=0 Score: 2". */
  trueJudgement(prompt: WorldPrompt, answer: string): string;
}

const judgeTemplate: JudgeTemplate = {
  name: "world",
  text: `${rubricToken} {prompt} ${responseToken} {response}`,
  maxScore: points.length,
};

export function createWorld(options: WorldOptions): World {
  const { seed } = options;
  if (!Number.isSafeInteger(seed)) {
    throw new TemporaError(`The world's seed is ${seed}`, { where: { field: "seed" }, remedy: "Give a whole number." });
  }
  const corruption = options.corruption ?? worldDefaults.corruption;
  return {
    seed,
    judgeTemplate,
    tokenizerFiles,
    modelConfig,
    prompts: (split, count, skip = 0) => distinctPrompts(seed, split, checkedCount(count), checkedCount(skip)),
    demonstrations: (count) => demonstrations(seed, checkedCount(count), corruption),
    gradedExamples: (count) => gradedExamples(seed, checkedCount(count)),
    trueScore: (prompt, answer) => total(grade(prompt.check, tokens(answer))),
    trueJudgement: (prompt, answer) => judgement(prompt.check, tokens(answer)),
  };
}

function modelConfig(): WorldModelConfig {
  return {
    family: "llama",
    vocabSize: vocabulary.length,
    hiddenSize: 64,
    intermediateSize: 192,
    layers: 2,
    heads: 4,
    kvHeads: 4,
    headDim: 32,
    normEps: 1e-5,
    tiedHead: true,
    qkvBias: false,
    outputBias: false,
    qkNorm: false,
    windows: [0, 0],
    // Rows have some thirty tokens: slow rotations would tell none of their positions apart.
    ropeTheta: 200,
    ropeScaling: null,
    maxPositions: 128,
  };
}

function checkedCount(count: number): number {
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new TemporaError(`The count is ${count}`, { where: { field: "count" }, remedy: "Give a whole number from 0." });
}

function tokens(text: string): string[] {
  return text.split(/\s+/u).filter((token) => token !== "");
}

/** A random prompt of the split; kinds are equally frequent. */
function drawPrompt(split: Split, random: Random): WorldPrompt {
  const kind = random.pick(kinds);
  for (;;) {
    const prompt = asPrompt(makeTask(kind, random));
    if (splitOf(prompt.id) === split) return prompt;
  }
}

function asPrompt(task: Task): WorldPrompt {
  const text = [task.kind, ...task.input].join(" ");
  const id = createHash("sha256").update(text).digest("hex").slice(0, 16);
  return { id, kind: task.kind, text, check: task };
}

/** Half of all prompts are for M0, three eighths for the loop, an eighth is held out. */
function splitOf(id: string): Split {
  const bucket = Number.parseInt(id.slice(0, 1), 16) & 7;
  if (bucket === 0) return "heldout";
  return bucket <= 3 ? "train" : "sft";
}

function distinctPrompts(seed: number, split: Split, count: number, skip: number): WorldPrompt[] {
  const random = new Random(seed, "prompts", split);
  const seen = new Set<string>();
  const list: WorldPrompt[] = [];
  let misses = 0;
  while (list.length < skip + count) {
    const prompt = drawPrompt(split, random);
    if (seen.has(prompt.id)) {
      if (++misses < 100_000) continue;
      throw new TemporaError(`The world has no ${skip + count} different ${split} prompts`, {
        remedy: `Ask for at most ${list.length}.`,
      });
    }
    seen.add(prompt.id);
    list.push(prompt);
  }
  return list.slice(skip);
}

function demonstrations(seed: number, count: number, corruption: { chance: number; more: number }): WorldRow[] {
  const random = new Random(seed, "demonstrations");
  return perPrompt(count, random, ({ check, text }) => {
    const good = check.open === null ? check.answer : sentence(check.open, random);
    const answer = random.chance(corruption.chance) ? spoil(good, check, random, corruption.more) : good;
    return row(text, answer.join(" "));
  });
}

/** Scores come round in turn, so that the judge learns each of them equally well. */
function gradedExamples(seed: number, count: number): WorldRow[] {
  const random = new Random(seed, "graded");
  return perPrompt(count, random, (prompt, index) => {
    const answer = answerOfScore(prompt.check, index % (points.length + 1), random);
    return row(judgePrompt(judgeTemplate, prompt.text, answer.join(" ")), judgement(prompt.check, answer));
  });
}

/** Rows of which `worldDefaults.answersPerPrompt` neighbours have one prompt. */
function perPrompt(
  count: number,
  random: Random,
  makeRow: (prompt: WorldPrompt, index: number) => WorldRow,
): WorldRow[] {
  let prompt = drawPrompt("sft", random);
  return Array.from({ length: count }, (_, index) => {
    if (index > 0 && index % worldDefaults.answersPerPrompt === 0) prompt = drawPrompt("sft", random);
    return makeRow(prompt, index);
  });
}

/** An answer of this score; after enough tries one of whatever score came last (a pair cannot be swapped everywhere). */
function answerOfScore(task: Task, score: number, random: Random): string[] {
  const good = task.open === null ? task.answer : sentence(task.open, random);
  if (score === points.length) return [...good];
  // Spoilt answers are never empty, but a model's own can be.
  if (score === 0 && random.chance(0.1)) return [];
  let answer = good;
  for (let attempt = 0; attempt < 200; attempt++) {
    answer = spoil(good, task, random, 0.2 + 0.2 * random.between(0, 3));
    if (total(grade(task, answer)) === score) return answer;
  }
  return answer;
}

function row(prompt: string, completion: string): WorldRow {
  return {
    prompt: [{ role: "user", content: prompt }],
    completion: [{ role: "assistant", content: completion }],
  };
}
