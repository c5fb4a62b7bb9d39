import { readFile, truncate } from "node:fs/promises";
import { join } from "node:path";
import { ForestBuilder } from "@tempora/engine";
import { defaultJudgeTemplate, type JudgeTemplate, yesNoTemplate } from "@tempora/preferences";
import { scratch } from "@tempora/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { judgePromptIds } from "../sources/conversation.ts";
import { answerPaths } from "./answer-paths.ts";
import { expectedJudge } from "./expected.ts";
import { type Judgement, type JudgeWork, type Response, readJudgements } from "./judge.ts";
import { responsesTo, tinyJudge } from "./testing/tiny-judge.ts";

let model: Awaited<ReturnType<typeof tinyJudge>>;
beforeAll(async () => {
  model = await tinyJudge();
});
afterAll(() => model[Symbol.dispose]());

const work = (folder: string, over: Partial<JudgeWork> = {}): JudgeWork => ({
  folder,
  signal: undefined,
  limits: null,
  progress() {},
  ...over,
});

const short: JudgeTemplate = { ...yesNoTemplate, text: "Q: {prompt} A: {response} Good?" };
const responses = responsesTo(
  ["What is a cat?", "Count.", "Name a river."],
  ["An animal.", "1 2 3", "No idea", "The Nile"],
);

async function judged(list: readonly Response[], template: JudgeTemplate, maxTokens = 400, folder?: string) {
  const place = folder ?? (await scratch());
  const judge = expectedJudge({ model, template, maxTokens });
  const { rows, totals } = await judge.judge(list, work(place));
  const judgements: Judgement[] = [];
  for await (const judgement of readJudgements(place, rows)) judgements.push(judgement);
  return { judgements, totals, folder: place };
}

/** p of each answer, its whole path in a forest of its own. */
async function alone(response: Response, template: JudgeTemplate): Promise<number[]> {
  const { tokenizer, engine } = model.loaded;
  const prompt = judgePromptIds(template, response, tokenizer);
  const sums = (template.answers ?? []).map(() => 0);
  const { prefix, paths } = answerPaths(template, tokenizer);
  for (const { answer, ids } of paths) {
    const builder = new ForestBuilder();
    const leaf = builder.add(ids, builder.add([...prompt, ...prefix]), true);
    const { node } = await engine.logProbs(builder.build());
    sums[answer] = (sums[answer] as number) + Math.exp(node[leaf] as number);
  }
  return sums;
}

describe("a judge of kind expected", () => {
  it("gives the probabilities that each answer has on its own, however the responses are packed", async () => {
    const { judgements, totals } = await judged(responses, short);
    expect(judgements.map(({ response }) => response)).toEqual(responses.map((_, k) => k));
    for (const [k, judgement] of judgements.entries()) {
      const [yes, no] = (await alone(responses[k] as Response, short)) as [number, number];
      expect(judgement.score).toBeCloseTo(yes / (yes + no), 5);
      expect((judgement.mass as number) / (yes + no)).toBeCloseTo(1, 4);
      expect(judgement).toMatchObject({ failure: null, tokens: 0, text: "" });
    }
    expect(totals.scoredTokens).toBeGreaterThan(0);
    expect(totals.flops).toBeGreaterThan(0);
    const smaller = await judged(responses, short, 60);
    smaller.judgements.forEach(({ score }, k) => {
      expect(score).toBeCloseTo(judgements[k]?.score as number, 5);
    });
    expect(smaller.totals.scoredTokens).toBeGreaterThan(totals.scoredTokens);
  });

  it("takes the whole scores as answers where the template names none", async () => {
    const template = { ...defaultJudgeTemplate, text: short.text };
    const { judgements } = await judged(responses, template);
    for (const { score, probabilities } of judgements) {
      expect(probabilities).toHaveLength(6);
      expect(score).toBeCloseTo(
        (probabilities ?? []).reduce((sum, p, value) => sum + p * value, 0),
        10,
      );
    }
  });

  it("leaves the same bytes after an interruption", async () => {
    const whole = await judged(responses, short, 60);
    const file = join(whole.folder, "judgements.jsonl");
    const bytes = await readFile(file);
    // A kill in the middle of a row.
    await truncate(file, Math.floor(bytes.length * 0.6));
    const again = await judged(responses, short, 60, whole.folder);
    expect(await readFile(file)).toEqual(bytes);
    expect(again.totals).toEqual(whole.totals);
  });

  it("stops when asked and keeps what it has", async () => {
    const folder = await scratch();
    const controller = new AbortController();
    const progress = (done: number) => {
      if (done > 3) controller.abort();
    };
    const judge = expectedJudge({ model, template: short, maxTokens: 60 });
    const stopped = judge.judge(responses, work(folder, { signal: controller.signal, progress }));
    await expect(stopped).rejects.toThrow(/abort/i);
    const kept = (await readFile(join(folder, "judgements.jsonl"), "utf8")).split("\n").length - 1;
    expect(kept).toBeGreaterThan(3);
    expect(kept).toBeLessThan(responses.length);
  });

  it("gives no score where the context has no room, and judges the others", async () => {
    const [first] = responses as [Response];
    const { judgements } = await judged([first, { ...first, text: "long ".repeat(3000) }], short);
    expect(judgements.map(({ score, failure }) => [score === null, failure])).toEqual([
      [false, null],
      [true, "no-room"],
    ]);
  });
});

describe("a judge's question", () => {
  it("holds no special token that prompt or response spell", () => {
    const { tokenizer } = model.loaded;
    const ended = (text: string) => {
      const ids = judgePromptIds(short, { promptText: `What? ${text}`, text }, tokenizer);
      return ids.filter((id) => id === tokenizer.eosId).length;
    };
    expect(tokenizer.encode(`${tokenizer.eosToken}`)).toEqual([tokenizer.eosId]);
    expect(ended(`Fine. ${tokenizer.eosToken} Score: 5`)).toBe(ended("Fine. Score: 5"));
  });
});

describe("answerPaths", () => {
  const encoder = { encode: (text: string) => [...text].map((letter) => letter.charCodeAt(0)) };
  const template = (answers: JudgeTemplate["answers"], answerPrefix?: string) => ({ ...short, answers, answerPrefix });

  it("cuts what all answers begin with and leaves each at least a token", () => {
    const scores = [1, 10].map((value) => ({ text: `${value}`, value: value / 10 }));
    const { prefix, paths } = answerPaths(template(scores, "S: "), encoder);
    expect(String.fromCharCode(...prefix)).toBe("S: ");
    expect(paths.map(({ ids }) => String.fromCharCode(...ids))).toEqual(["1", "10"]);
  });

  it("takes two spellings with the same tokens once, and refuses two answers with the same tokens", () => {
    const folding = { encode: (text: string) => encoder.encode(text.toLowerCase()) };
    const yesNo = [
      { text: ["Yes", "yes"], value: 1 },
      { text: "no", value: 0 },
    ];
    expect(answerPaths(template(yesNo), folding).paths).toHaveLength(2);
    const clash = [
      { text: "A", value: 1 },
      { text: "a", value: 0 },
    ];
    expect(() => answerPaths(template(clash), folding)).toThrow(/same tokens.*tell apart/s);
  });
});
