import { parseScore } from "@tempora/preferences";
import { describe, expect, it } from "vitest";
import { worldDefaults } from "./defaults.ts";
import { kinds } from "./vocabulary.ts";
import { createWorld, type Split } from "./world.ts";

const world = createWorld({ seed: 1 });
const splits: Split[] = ["sft", "train", "heldout"];

function textsOf(split: Split, count: number, seed = 1): string[] {
  return createWorld({ seed })
    .prompts(split, count)
    .map(({ text }) => text);
}

describe("prompts", () => {
  it("are different within a split, and chunks do not overlap", () => {
    const all = world.prompts("train", 6000);
    expect(new Set(all.map(({ id }) => id)).size).toBe(6000);
    expect(world.prompts("train", 500, 1500)).toEqual(all.slice(1500, 2000));
  });

  it("never stand in two splits, whatever the seed", () => {
    const heldout = new Set([...textsOf("heldout", 3000), ...textsOf("heldout", 3000, 2)]);
    for (const seed of [1, 2]) {
      const train = textsOf("train", 5000, seed);
      expect(train.filter((text) => heldout.has(text))).toEqual([]);
      const seen = new Set(train);
      expect(textsOf("sft", 5000, seed).filter((text) => seen.has(text) || heldout.has(text))).toEqual([]);
    }
  });

  it("leave the trained rows nothing of the held-out ones", () => {
    const heldout = new Set(textsOf("heldout", 3000));
    for (const { prompt } of world.demonstrations(3000)) expect(heldout.has(prompt[0]!.content)).toBe(false);
    for (const { prompt } of world.gradedExamples(3000)) {
      const instruction = prompt[0]!.content.replace(/^judge /, "").replace(/ answer .*$/, "");
      expect(heldout.has(instruction)).toBe(false);
    }
  });

  it("are the same for the same seed, and others for another", () => {
    for (const split of splits) {
      expect(textsOf(split, 50)).toEqual(textsOf(split, 50));
      expect(textsOf(split, 50)).not.toEqual(textsOf(split, 50, 2));
    }
  });

  it("cover every kind about equally", () => {
    const prompts = world.prompts("heldout", 1000);
    for (const kind of kinds) {
      const count = prompts.filter((prompt) => prompt.kind === kind).length;
      expect(count).toBeGreaterThan(60);
      expect(count).toBeLessThan(140);
    }
  });

  it("say so when there are not enough, or the count is none", () => {
    expect(() => world.prompts("train", -1)).toThrow(/count is -1/);
    expect(() => world.prompts("train", 1.5)).toThrow(/whole number/);
    expect(() => createWorld({ seed: Number.NaN })).toThrow(/seed is NaN/);
  });
});

describe("demonstrations", () => {
  it("are a prefix of any longer set", () => {
    expect(world.demonstrations(30)).toEqual(world.demonstrations(60).slice(0, 30));
  });

  it("are right when nothing is spoilt and mixed otherwise", () => {
    const rate = (chance: number) => {
      const rows = createWorld({ seed: 5, corruption: { chance, more: 0.3 } }).demonstrations(1000);
      const repeats = rows.filter(({ prompt }) => prompt[0]!.content.startsWith("repeat "));
      const right = repeats.filter(
        ({ prompt, completion }) => prompt[0]!.content === `repeat ${completion[0]!.content}`,
      );
      return right.length / repeats.length;
    };
    expect(rate(0)).toBe(1);
    expect(rate(0.5)).toBeGreaterThan(0.3);
    expect(rate(0.5)).toBeLessThan(0.7);
    expect(rate(1)).toBeLessThan(0.1);
  });
});

describe("demonstrations and graded examples", () => {
  it("never have an empty completion", () => {
    for (const { completion } of [...world.demonstrations(2000), ...world.gradedExamples(2000)]) {
      expect(completion[0]!.content).not.toBe("");
    }
  });
});

describe("graded examples", () => {
  const rows = world.gradedExamples(1200);
  const scores = rows.map(({ completion }) => parseScore(completion[0]!.content));

  it("end with a score that the parser reads, each score about equally often", () => {
    for (let score = 0; score <= 5; score++) {
      const count = scores.filter((parsed) => "score" in parsed && parsed.score === score).length;
      expect(count).toBeGreaterThan(180);
      expect(count).toBeLessThan(220);
    }
  });

  it("are prefixed by rubric and instruction, so that answers can share them", () => {
    for (const { prompt } of rows) expect(prompt[0]!.content).toMatch(/^judge [a-z]+ .* answer( |$)/);
  });
});

describe("the true score", () => {
  it("agrees with its judgement and its check", () => {
    for (const prompt of world.prompts("heldout", 300)) {
      const right = prompt.check.answer.join(" ");
      expect(world.trueScore(prompt, right)).toBe(5);
      expect(world.trueScore(prompt, `  ${right}\n`)).toBe(5);
      expect(world.trueScore(prompt, "")).toBe(0);
      expect(parseScore(world.trueJudgement(prompt, right))).toEqual({ score: 5 });
      const shorter = prompt.check.answer.slice(1).join(" ");
      expect(parseScore(world.trueJudgement(prompt, shorter))).toEqual({ score: world.trueScore(prompt, shorter) });
    }
  });
});

describe("the defaults", () => {
  it("leave room for every answer and judgement", () => {
    const { maxAnswerTokens, maxJudgementTokens } = worldDefaults.loop;
    const longest = Array(maxAnswerTokens).fill("dog").join(" ");
    for (const prompt of world.prompts("heldout", 500)) {
      expect(prompt.check.answer.length + 1).toBeLessThanOrEqual(maxAnswerTokens);
      expect(world.trueJudgement(prompt, longest).split(" ").length + 1).toBeLessThanOrEqual(maxJudgementTokens);
    }
  });
});
