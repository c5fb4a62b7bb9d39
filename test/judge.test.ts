import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Calibration } from "@tempora/run";
import { oracle, readJson, readLines, scratch } from "@tempora/testing";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { startTempora, tempora, temporaJson } from "./support/cli.ts";

vi.setConfig({ testTimeout: 120_000 });

interface Calibrated {
  templates: Record<string, Calibration & { mass: number | null }>;
}

const folder = await scratch();
/** A small random model: as a judge in words it never gives a score. */
const model = oracle("llama", "policy");

interface JudgedRow {
  completions: { text: string; score: number | null; judgements: { score: number | null; attempt: number }[] }[];
}

function rowsFile(name: string, rows: readonly object[]): string {
  const file = join(folder, name);
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return file;
}

function candidates(name: string, rows: number): string {
  return rowsFile(
    name,
    Array.from({ length: rows }, (_, k) => ({
      prompt: `Count to ${k}.`,
      truth: k,
      completions: [{ text: "1 2 3" }, { text: `It is ${k}.` }, { text: "1 2 3" }],
    })),
  );
}

const command = (data: string, out: string, ...rest: string[]) => [
  ...["judge", "--model", model, "--data", data, "--out", out, "--max-new-tokens", "4", "--threads", "1"],
  ...rest,
];

/** The address of a server that judges, until the test ends. */
async function judgeServer(reply: (question: string) => string): Promise<string> {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { messages } = JSON.parse(body) as { messages: [{ content: string }] };
    const message = { role: "assistant", content: reply(messages[0].content) };
    const choices = [{ index: 0, message, finish_reason: "stop" }];
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ choices, usage: { prompt_tokens: 10, completion_tokens: 4, total_tokens: 14 } }));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
}

describe("tempora judge", () => {
  test("stops a judge whose first judgements give no score, and names another kind", async () => {
    const data = candidates("hopeless.jsonl", 200);
    const out = join(folder, "hopeless-judged.jsonl");
    const { code, stderr } = await tempora(command(data, out));
    expect(code).toBe(1);
    // Of 400 responses the first 32, three judgements each: nothing is spent on the rest.
    expect(stderr).toContain("96 of 96 judgements gave no score");
    expect(stderr).toContain("--judge expected");
    expect(existsSync(out)).toBe(false);
  });

  test("reads scores from probabilities, equal completions once", async () => {
    const out = join(folder, "expected.jsonl");
    const data = candidates("some.jsonl", 6);
    const result = await temporaJson<{ completions: number; audit: { judgements: number }; cost: { flops: number } }>(
      command(data, out, "--judge", "expected"),
    );
    expect(result).toMatchObject({ completions: 18, audit: { judgements: 12, failures: 0 } });
    expect(result.cost.flops).toBeGreaterThan(0);
    for (const { completions } of readLines<JudgedRow>(out)) {
      expect(completions[0]?.score).toBeGreaterThan(0);
      expect(completions[0]).toEqual(completions[2]);
    }
    expect(existsSync(`${out}.work`)).toBe(false);
  });

  test("goes on after kill -9 and writes what an uninterrupted command writes", async () => {
    const data = candidates("many.jsonl", 60);
    const template = join(folder, "template.json");
    writeFileSync(template, JSON.stringify({ name: "mine", text: "{prompt} {response} Score", maxScore: 5 }));
    const args = (out: string) =>
      command(data, out, "--template", template, "--judge", "expected", "--max-tokens", "64");
    const whole = join(folder, "whole.jsonl");
    expect((await tempora(args(whole))).code).toBe(0);
    const out = join(folder, "killed.jsonl");
    const log = `${out}.work/judgements.jsonl`;
    const running = startTempora(args(out));
    await vi.waitUntil(() => existsSync(log) && readFileSync(log, "utf8").split("\n").length > 10, {
      timeout: 60_000,
      interval: 1,
    });
    running.child.kill("SIGKILL");
    await running.done;
    expect(existsSync(out)).toBe(false);
    const kept = readFileSync(log);
    expect(kept.length).toBeGreaterThan(0);
    expect((await tempora(args(out))).code).toBe(0);
    expect(readFileSync(out)).toEqual(readFileSync(whole));
    expect(existsSync(`${out}.work`)).toBe(false);
  });

  test("judges by functions of a configuration, which read the rows' columns", async () => {
    const data = candidates("columns.jsonl", 4);
    const out = join(folder, "function.jsonl");
    const config = join(folder, "judging.config.ts");
    writeFileSync(
      config,
      `export default { judge: { functions: [
        { name: "truth", score: ({ answers, truth }) => answers.map((answer, k) => (answer.includes(String(truth[k])) ? 1 : 0)) },
        { name: "short", score: async ({ answers }) => answers.map((answer) => answer.length), weight: -0.5, range: [0, 20] },
      ] } };\n`,
    );
    const { code, stderr } = await tempora([
      ...["judge", "--judge", "function", "--config", config, "--data", data, "--out", out],
    ]);
    expect(stderr).not.toMatch(/^error/m);
    expect(code).toBe(0);
    const [first] = readLines<JudgedRow>(out).slice(3);
    expect(first?.completions.map(({ score }) => score)).toEqual([
      expect.closeTo((1 - (0.5 * 5) / 20) / 1.5, 10),
      expect.closeTo((1 - (0.5 * 8) / 20) / 1.5, 10),
      expect.closeTo((1 - (0.5 * 5) / 20) / 1.5, 10),
    ]);
    expect(first?.completions[1]?.judgements).toMatchObject([{ parts: { truth: 1, short: 8 } }]);
  });

  test("shows that a function is still at work, and leaves one that never ends at the first signal", async () => {
    const data = candidates("endless.jsonl", 40);
    const out = join(folder, "endless-judged.jsonl");
    const config = join(folder, "endless.config.ts");
    const judging = (score: string) => {
      const own = `{ name: "own", version: "1", score: ({ answers }) => ${score} }`;
      writeFileSync(config, `export default { judge: { functions: [${own}] } };\n`);
      return startTempora(["judge", "--judge", "function", "--config", config, "--data", data, "--out", out]);
    };
    const running = judging("answers.length < 64 ? new Promise(() => {}) : answers.map(() => 1)");
    await running.says("judge: 64/80 judgements");
    running.child.kill("SIGTERM");
    const { code, stderr } = await running.done;
    expect(code).toBe(143);
    expect(stderr).toContain("Judgements made so far are kept");
    expect((await judging("answers.length < 64 ? answers.map(() => 0) : answers.map(() => 2)").done).code).toBe(0);
    const scores = readLines<JudgedRow>(out).flatMap(({ completions }) =>
      completions.slice(0, 2).map(({ score }) => score),
    );
    // The first 64 are those of the command that was stopped.
    expect(scores).toEqual([...new Array(64).fill(1), ...new Array(16).fill(0)]);
  });

  test("takes a judge for one of no use where the configuration's limits say so", async () => {
    const url = await judgeServer((content) => (content.includes("It is 3.") ? "Score: 5" : "Well."));
    const data = candidates("limits.jsonl", 4);
    const judging = (name: string, limits: string) => {
      const config = join(folder, `${name}.config.ts`);
      writeFileSync(config, `export default { judge: { limits: {${limits}} } };\n`);
      return tempora([
        ...["judge", "--judge", "endpoint", "--endpoint", url, "--endpoint-model", "m", "--config", config],
        ...["--data", data, "--out", join(folder, `${name}.jsonl`), "--retries", "0"],
      ]);
    };
    const strict = await judging("strict", "");
    expect(strict.code).toBe(1);
    expect(strict.stderr).toContain("21 of 24 judgements gave no score");
    const patient = await judging("patient", "maxFailureRate: 0.9");
    expect(patient.stderr).not.toMatch(/warning|error/);
    expect(patient.code).toBe(0);
    const wary = await judging("wary", "maxFailureRate: 0.9, minJudgements: 3");
    expect(wary.stderr).toMatch(/warning: of 3 scores 100.0 % are the same/);
    expect(wary.code).toBe(0);
  });

  test("judges by a server, and keeps its words as rows that teach to judge", async () => {
    const url = await judgeServer((content) => (content.includes("It is") ? "Right. Score: 5" : "Wrong. Score: 1"));
    const [out, graded] = [join(folder, "served.jsonl"), join(folder, "graded.jsonl")];
    const result = await temporaJson<{ cost: { billedTokens: number; billedPromptTokens: number } }>([
      ...["judge", "--judge", "endpoint", "--endpoint", url, "--endpoint-model", "m"],
      ...["--data", candidates("served-data.jsonl", 3), "--out", out, "--graded", graded, "--judgements", "2"],
    ]);
    expect(result.cost).toMatchObject({ billedTokens: 48, billedPromptTokens: 120 });
    expect(readLines<JudgedRow>(out)[0]?.completions.map(({ score }) => score)).toEqual([1, 5, 1]);
    const rows = readLines<{ prompt: { content: string }[]; completion: { content: string }[] }>(graded);
    expect(rows).toHaveLength(6);
    expect(rows[1]?.prompt[0]?.content).toContain("It is 0.");
    expect(rows[1]?.completion).toEqual([{ role: "assistant", content: "Right. Score: 5" }]);
    const mute = command(candidates("mute.jsonl", 1), out, "--judge", "expected", "--graded", graded);
    expect((await tempora(mute)).stderr).toContain("--graded");
  });

  test("measures templates on answers whose order is known", async () => {
    const data = rowsFile(
      "known.jsonl",
      Array.from({ length: 5 }, (_, k) => ({ prompt: `Count to ${k}.`, better: `It is ${k}.`, bad: "No." })),
    );
    const config = join(folder, "known.config.ts");
    writeFileSync(
      config,
      `export default { judge: { functions: [{ name: "own", score: ({ prompts, answers }) =>
        answers.map((answer, k) => (answer.includes(prompts[k].match(/\\d/)[0]) ? 1 : 0)) }] } };\n`,
    );
    const flags = ["--data", data, "--columns", "worse=bad", "--calibrate"];
    const own = ["judge", "--judge", "function", "--config", config, ...flags];
    const known = await temporaJson<Calibrated>(own);
    expect(known.templates.own).toMatchObject({
      rows: 5,
      ranked: { rate: 1, count: 5 },
      betterAboveOther: { rate: 1 },
      worseAboveOther: { rate: 0.5, ties: 5 },
      mass: null,
    });
    // template, better above worse, better above other's, worse above other's, rows, no score, mass
    const line = /^own +1\.00 \[\S+ 1\.00\] +1\.00 \[\S+ 1\.00\] +0\.50 \[\S+ \S+\] +5 +0 +–$/m;
    expect((await tempora(own)).stdout).toMatch(line);
    const out = join(folder, "calibration.json");
    const judge = ["judge", "--model", oracle("llama", "policy"), "--judge", "expected", "--out", out, ...flags];
    const model = await temporaJson<Calibrated>(judge);
    expect(Object.keys(model.templates)).toEqual(["five-point-score", "yes-no", "yes-no-second"]);
    for (const { ranked, mass } of Object.values(model.templates)) {
      expect(ranked.count).toBe(5);
      expect(mass).toBeGreaterThan(0);
      expect(mass).toBeLessThan(1);
    }
    expect(readJson(out)).toEqual(model);
    expect(existsSync(`${out}.work`)).toBe(false);
  });

  test("says what is missing", async () => {
    const data = candidates("missing.jsonl", 1);
    const out = join(folder, "missing-judged.jsonl");
    const faults: [string[], RegExp][] = [
      [["--judge", "expected", "--out", out], /--model.*is missing/],
      [["--judge", "endpoint", "--out", out], /endpoint and none is named.*--endpoint URL --endpoint-model NAME/s],
      [["--judge", "function", "--out", out], /function and there is none.*--config/s],
      [["--model", model], /--out.*is missing/],
      [["--model", model, "--out", out, "--template", "nosuch"], /no judge's template "nosuch".*yes-no/s],
      [["--model", model, "--calibrate"], /order of the row's answers is not known.*row 1/s],
    ];
    for (const [rest, message] of faults) {
      const { code, stderr } = await tempora(["judge", "--data", data, ...rest], { cwd: folder });
      expect(code).toBe(1);
      expect(stderr).toMatch(message);
    }
  });
});
