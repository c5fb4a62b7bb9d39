import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { oracle, scratch } from "@tempora/testing";
import { readAllRows, Tokenizer } from "@tempora/text";
import { afterEach, describe, expect, it, vi } from "vitest";
import { paperSettings, type Settings } from "../settings/settings.ts";
import { type RunOutcome, runLoop } from "./loop.ts";
import { artifacts } from "./tiny.ts";

const folder = await scratch();
const question = "Which number?";
const chat =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const date = "{{ strftime_now('%d %b %Y') }}";
const templates = {
  /** Every prompt begins with the date. */
  everywhere: date + chat,
  /** Answers are asked for without it. */
  "in the judge's question": `{% if '${question}' in messages[-1].content %}${date}{% endif %}${chat}`,
};

/** A run of a model with one of the templates, in a place of its own unless one is named. */
async function run(
  template: keyof typeof templates,
  {
    runs,
    name = "run",
    over = {},
    started,
  }: Partial<{ runs: string; name: string; over: Partial<Settings>; started: string }>,
): Promise<RunOutcome & { runs: string }> {
  const place = runs ?? (await scratch());
  const model = join(folder, template.replaceAll(/\W/g, "-"));
  await cp(oracle("llama", "policy"), model, { recursive: true });
  await writeFile(join(model, "chat_template.jinja"), templates[template]);
  const prompts = join(folder, "prompts.jsonl");
  const texts = Array.from({ length: 12 }, (_, k) => `${JSON.stringify({ prompt: `Question ${k}?` })}\n`);
  await writeFile(prompts, texts.join(""));
  if (started !== undefined) {
    await mkdir(join(place, name), { recursive: true });
    await writeFile(join(place, name, "started.json"), JSON.stringify({ date: started }));
  }
  const { judge, evaluation } = paperSettings;
  const sampling = { ...paperSettings.sampling, temperature: 1, maxNewTokens: 4 };
  const limits = { minJudgements: 0, maxFailureRate: 1, minVariance: 0, maxEqualShare: 1, maxTieRate: 1 };
  const settings: Settings = {
    ...paperSettings,
    model,
    prompts,
    iterations: 1,
    promptsPerIteration: 4,
    candidates: 3,
    sampling,
    selection: { ...paperSettings.selection, truncated: "keep" },
    judge: {
      ...judge,
      kind: "expected",
      template: { name: "number", text: `${question} {prompt} {response}`, maxScore: 5 },
      heldBack: 0,
      limits,
    },
    evaluation: { ...evaluation, prompts: 2, judgedPrompts: 2, sampling },
    engine: { ...paperSettings.engine, threads: 1 },
    ...over,
  };
  const outcome = await runLoop({ config: { run: name, runs: place, settings }, codeVersion: "test" });
  return { ...outcome, runs: place };
}

const computed = async ({ folder: made }: RunOutcome) => {
  const events = await readAllRows(join(made, "events.jsonl"));
  return Object.fromEntries(
    events.filter(({ value }) => value.event === "stage").map(({ value }) => [`${value.label}`, `${value.key}`]),
  );
};

/** Where both have a stage of the same key. */
async function shared(one: RunOutcome, other: RunOutcome): Promise<string[]> {
  const [keys, others] = [await computed(one), await computed(other)];
  return Object.keys(keys).filter((label) => keys[label] === others[label]);
}

describe("a run of a model whose template writes the date", () => {
  afterEach(() => void vi.useRealTimers());

  it("gives after midnight what it would have given before", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: new Date(2020, 0, 31, 23, 50) });
    const before = await run("everywhere", {});
    vi.setSystemTime(new Date(2020, 1, 1, 0, 10));
    const after = await run("everywhere", { started: "2020-01-31" });
    expect(after.stages).toEqual(before.stages);
    expect(await artifacts(after.folder)).toEqual(await artifacts(before.folder));
    const [pair] = await readAllRows(join(after.folder, "iterations/1/pairs.jsonl"));
    const tokenizer = await Tokenizer.load(join(after.folder, "models/M0"));
    expect(tokenizer.decode(pair?.value.prompt_ids as number[])).toMatch(/^31 Jan 2020/);
    const again = await run("everywhere", { runs: before.runs });
    expect(again.stages.computed).toBe(0);
  }, 120_000);

  it("has no stage in common with one of another day, nor judgements where only the judge is told the date", async () => {
    const data = join(folder, "examples.jsonl");
    await writeFile(data, `${JSON.stringify({ prompt: "One?", completion: "Two." })}\n`);
    const start = { ...paperSettings.start, data: [data] };
    const first = await run("everywhere", { over: { date: "2020-01-31", start } });
    const { runs } = first;
    const other = await run("everywhere", { runs, name: "other", over: { date: "2020-02-01", start } });
    expect(await shared(first, other)).toEqual([]);
    const asked = await run("in the judge's question", { over: { date: "2020-01-31" } });
    const later = { runs: asked.runs, name: "later", over: { date: "2020-02-01" } };
    const judgements = async (outcome: RunOutcome) =>
      readAllRows(join(outcome.folder, "iterations/1/judgements.jsonl"));
    // The same answers, and other scores.
    const [one, two] = [await judgements(asked), await judgements(await run("in the judge's question", later))];
    expect(two.map(({ value }) => value.candidate_id)).toEqual(one.map(({ value }) => value.candidate_id));
    expect(two.map(({ value }) => value.score)).not.toEqual(one.map(({ value }) => value.score));
  }, 120_000);
});
