import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { lengthControlledWinRate, winRate } from "@tempora/preferences";
import { scratch } from "@tempora/testing";
import { readAllRows } from "@tempora/text";
import { beforeAll, describe, expect, it } from "vitest";
import type { AnswerRow, JudgementRow, RunResult } from "../results/results.ts";
import type { Settings } from "../settings/settings.ts";
import { worldSource } from "../sources/world.ts";
import { runLoop } from "./loop.ts";
import { tinySettings } from "./tiny.ts";

const folder = await scratch();
const base: Settings = { ...tinySettings(), baselines: [], iterations: 1, promptsPerIteration: 8 };

async function run(name: string, settings: Settings): Promise<{ folder: string; result: RunResult }> {
  return runLoop({ config: { run: name, runs: folder, settings }, codeVersion: "test" });
}

async function rows<T>(...path: string[]): Promise<T[]> {
  return (await readAllRows(join(folder, ...path))).map(({ value }) => value as T);
}

const lastPhase = (result: RunResult) => result.strategies[0]?.iterations[0]?.phases.at(-1);

describe("a run's judge", () => {
  beforeAll(async () => {
    await run("sampled", base);
  }, 300_000);

  it("in words measures the gap by judgements that picked no pair", async () => {
    const { result } = await run("sampled", base);
    const phase = lastPhase(result);
    expect(phase?.gapBy).toBe("held-back judgements");
    expect(phase?.scoreGap.count).toBeGreaterThan(0);
    // What picked the pairs overstates their gap.
    expect(phase?.pickedGap.mean).toBeGreaterThan(phase?.scoreGap.mean as number);
    expect(result.strategies[0]?.best).toMatch(/^M[01]$/);
    const answers = (name: string) => rows<AnswerRow>(`sampled/evaluation/${name}.jsonl`);
    const [later, first] = [await answers("M1"), await answers("M0")];
    const scores = (list: AnswerRow[]) => list.map(({ true_score }) => true_score as number);
    const lengths = (list: AnswerRow[]) => list.map(({ tokens }) => tokens);
    const plain = winRate(scores(later), scores(first));
    const controlled = lengthControlledWinRate(scores(later), scores(first), lengths(later), lengths(first));
    const model = result.strategies[0]?.models[1];
    expect(model?.winRate).toEqual({ mean: plain.rate, low: plain.low, high: plain.high, count: 24 });
    expect(model?.lengthControlledWinRate?.mean).toBeCloseTo(controlled.rate, 12);
    expect(controlled.rate).not.toBeCloseTo(plain.rate, 3);
    const without = await run("all-pick", { ...base, judge: { ...base.judge, heldBack: 0 } });
    const own = lastPhase(without.result);
    expect(own?.gapBy).toBe("scores that picked the pair");
    expect(own?.scoreGap).toEqual(own?.pickedGap);
  }, 300_000);

  it("of kind expected samples nothing and measures the gap by a second wording, where there is one", async () => {
    const question = (name: string, text: string) => ({ name, text, maxScore: 5 });
    const [one, two] = [question("one", "{prompt} : {response} score"), question("two", "{prompt} {response} points")];
    const judge = { ...base.judge, kind: "expected" as const, template: one, secondTemplate: two };
    const { result } = await run("expected", { ...base, judge });
    expect(lastPhase(result)?.gapBy).toBe("a second wording");
    const judgements = await rows<JudgementRow>("expected/iterations/1/judgements.jsonl");
    expect(judgements.length).toBeGreaterThan(8);
    for (const { score, probabilities, text } of judgements) {
      expect(score).not.toBeNull();
      expect(probabilities).toHaveLength(6);
      expect(text).toBe("");
    }
    const entry = result.strategies[0]?.iterations[0]?.ledger.find(({ stage }) => stage === "judge");
    expect(entry?.judgedTokens).toBe(0);
    expect(entry?.scoredTokens).toBeGreaterThan(0);
    const alone = await run("one-wording", { ...base, judge: { ...judge, secondTemplate: null } });
    expect(lastPhase(alone.result)?.gapBy).toBe("scores that picked the pair");
  }, 300_000);

  it("reads a prompt with the row's variables of the template each time that it is asked", async () => {
    const model = join(folder, "marking");
    await cp(join(folder, "sampled/models/M0"), model, { recursive: true });
    const file = join(model, "tokenizer_config.json");
    const config = JSON.parse(await readFile(file, "utf8"));
    // A word before each turn, where the row asks for it.
    const marked = `{% if mark is defined %}{{ mark }}{% endif %}${config.chat_template}`;
    await rm(file);
    await writeFile(file, JSON.stringify({ ...config, chat_template: marked }));
    const prompts = join(folder, "marked.jsonl");
    const rows = worldSource(base)
      .training(11, 40)
      .map(({ text }) => JSON.stringify({ prompt: text, chat_template_kwargs: { mark: "score " } }));
    await writeFile(prompts, rows.join("\n"));
    const one = { name: "one", text: "{prompt} : {response} score", maxScore: 5 };
    // The same words: whoever asks by them, of the same prompts, has the same answer.
    const judge = { ...base.judge, kind: "expected" as const, template: one, secondTemplate: { ...one, name: "two" } };
    const settings: Settings = { ...base, model, prompts, replay: { ...base.replay, weight: 0 }, judge };
    const phase = lastPhase((await run("marked", settings)).result);
    expect(phase?.gapBy).toBe("a second wording");
    expect(phase?.scoreGap.mean).toBeCloseTo(phase?.pickedGap.mean as number, 5);
  }, 300_000);

  it("may be functions that read the prompts' columns, weighed with the model's own opinion", async () => {
    const world = worldSource(base);
    const prompts = join(folder, "prompts.jsonl");
    const texts = [...world.training(7, 30), ...world.heldOut().slice(0, 8)].map(({ text }, k) => ({
      prompt: text,
      wanted: k % 5,
    }));
    await writeFile(prompts, texts.map((row) => JSON.stringify(row)).join("\n"));
    const seen: unknown[] = [];
    const settings: Settings = {
      ...base,
      model: join(folder, "sampled/models/M0"),
      prompts,
      replay: { ...base.replay, weight: 0 },
      stopWhenWorse: 1,
      judge: {
        ...base.judge,
        kind: "function",
        functions: [
          {
            name: "words",
            version: "1",
            weight: 1,
            range: [0, 10],
            score: ({ answers, wanted }) => {
              seen.push(...(wanted ?? []));
              return answers.map((answer, k) => 10 - Math.abs(answer.split(" ").length - Number(wanted?.[k])));
            },
          },
        ],
        quality: { kind: "expected", weight: 0.5 },
      },
    };
    const { result } = await run("weighed", settings);
    expect(seen.length).toBeGreaterThan(20);
    expect(new Set(seen)).toEqual(new Set([0, 1, 2, 3, 4]));
    const phase = lastPhase(result);
    expect(phase?.gapBy).toBe("scores that picked the pair");
    const [judgement] = await rows<JudgementRow>("weighed/iterations/1/judgements.jsonl");
    expect(judgement?.parts).toEqual({ words: expect.any(Number), quality: expect.any(Number) });
    expect(judgement?.judge).toBe("words + quality of M0");
    const model = result.strategies[0]?.models[1];
    expect(Object.keys(model?.judgedParts ?? {})).toEqual(["words", "quality"]);
    expect(model?.heldOutScore.mean).toBeGreaterThan(0);
    const [answer] = await rows<AnswerRow>("weighed/evaluation/M1.jsonl");
    expect(answer?.judged_parts).toEqual({ words: expect.any(Number), quality: expect.any(Number) });
  }, 300_000);

  it("ends a loop whose models fall, where that is asked for", async () => {
    const prompts = join(folder, "falling.jsonl");
    const world = worldSource(base);
    const texts = [...world.training(9, 30), ...world.heldOut().slice(0, 8)].map(({ text }) =>
      JSON.stringify({ prompt: text }),
    );
    await writeFile(prompts, texts.join("\n"));
    // Whatever is judged later scores less: M1 falls below M0.
    let score = 1000;
    const falling = { name: "falling", version: "1", weight: 1, range: [0, 1000] as [number, number] };
    const settings: Settings = {
      ...base,
      model: join(folder, "sampled/models/M0"),
      prompts,
      replay: { ...base.replay, weight: 0 },
      iterations: 3,
      stopWhenWorse: 1,
      judge: {
        ...base.judge,
        kind: "function",
        functions: [{ ...falling, score: ({ answers }) => answers.map(() => score--) }],
      },
    };
    const { result } = await run("falling", settings);
    const [strategy] = result.strategies;
    expect(result.status).toBe("finished");
    expect(strategy?.iterations).toHaveLength(1);
    expect(strategy?.best).toBe("M0");
    expect(strategy?.stopped).toMatch(/its held-out score fell: M1 .* after M0/);
  }, 300_000);
});
