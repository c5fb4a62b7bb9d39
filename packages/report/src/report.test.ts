import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { chartsOf } from "./charts.ts";
import { studyTable, summaryTable } from "./summary-table.ts";
import { estimate, sampleRun } from "./testing/sample-run.ts";
import { renderReport, writeReport } from "./write-report.ts";

const folder = mkdtempSync(join(tmpdir(), "tempora-report-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Writes the sample as a run writes itself. */
function writeSample(name: string): string {
  const run = sampleRun();
  const target = join(folder, name);
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(target, path)), { recursive: true });
    writeFileSync(join(target, path), text);
  };
  const lines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  write("run.json", JSON.stringify(run.result));
  write("events.jsonl", lines(run.events));
  for (const strategy of run.result.strategies) {
    for (const { model, answersFile } of strategy.models) {
      const own = run.answers.find((answers) => answers.strategy === strategy.name && answers.model === model);
      write(answersFile, lines(own?.rows ?? []));
    }
    for (const { iteration, phases } of strategy.iterations) {
      for (const { phase, pairsFile } of phases) {
        const own = run.pairs.find(
          (pairs) => pairs.strategy === strategy.name && pairs.iteration === iteration && pairs.phase === phase,
        );
        write(pairsFile, lines(own?.rows ?? []));
      }
    }
  }
  return target;
}

function embedded(html: string): { charts: { id: string }[]; pairs: { prompt: string; chosen: { text: string } }[] } {
  const json = /<script type="application\/json" id="run-data">(.*?)<\/script>/s.exec(html)?.[1] ?? "";
  return JSON.parse(json) as ReturnType<typeof embedded>;
}

describe("report.html", () => {
  test("is written beside the run and holds every chart and every pair", async () => {
    const file = await writeReport(writeSample("run"));
    expect(file).toBe(join(folder, "run", "report.html"));
    const html = await readFile(file, "utf8");
    const { charts, pairs } = embedded(html);
    expect(pairs.length).toBe(125);
    for (const id of ["score-gap", "cosine", "margin", "dpo-weight", "true-score", "win-rate", "judge-histogram"]) {
      expect(charts.map((chart) => chart.id)).toContain(id);
      expect(html).toContain(`id="chart-${id}"`);
    }
    expect(html).toContain("3.67 ± 0.10");
    expect(html).toContain("candidates of M0");
    // Of the 25 held-out answers of each model in the folder.
    expect(html.match(/answer 19 of M2/g)).toHaveLength(1);
    expect(html).not.toContain("answer 20 of M2");
  });

  test("keeps text of the run from becoming markup", async () => {
    const html = await renderReport(sampleRun());
    expect(html).not.toContain("<script>alert(1)");
    expect(html).not.toContain("<b>bold</b>");
    expect(embedded(html).pairs[0]?.chosen.text).toBe("</script><script>alert(1)</script>");
    // Three scripts: the data, the library, the page's own; none is ended by its content.
    expect(html.match(/<\/script>/g)?.length).toBe(3);
  });

  test("asks the network for nothing", async () => {
    const html = await renderReport(sampleRun());
    const page = html.replace(/<script>.*?<\/script>/gs, "");
    expect(page).not.toMatch(/(?:src|href)\s*=\s*["']?(?!#|data:)[^"'>\s]/i);
    expect(page).not.toMatch(/url\(|@import|https?:/i);
    const own = await readFile(new URL("../page/page.js", import.meta.url), "utf8");
    expect(own).not.toMatch(/fetch\(|XMLHttpRequest|import\(|https?:/);
  });

  test("of a folder that holds no run is refused", async () => {
    await expect(writeReport(join(folder, "nowhere"))).rejects.toThrow(/no run folder.*nowhere\).*tempora train/s);
    mkdirSync(join(folder, "study", "seed-3"), { recursive: true });
    writeFileSync(join(folder, "study", "study.json"), "{}");
    await expect(writeReport(join(folder, "study"))).rejects.toThrow(/a study over seeds .*study\/seed-3\.$/);
    mkdirSync(join(folder, "other"), { recursive: true });
    writeFileSync(join(folder, "other", "run.json"), '{"format": 99}');
    await expect(writeReport(join(folder, "other"))).rejects.toThrow(/another format/);
    writeFileSync(join(folder, "other", "run.json"), "{");
    await expect(writeReport(join(folder, "other"))).rejects.toThrow(/not JSON/);
  });
});

describe("charts", () => {
  test("carry intervals, and steps run on over phases and iterations", () => {
    const charts = new Map(chartsOf(sampleRun()).map((chart) => [chart.id, chart]));
    const gap = charts.get("score-gap");
    expect(gap?.series.map(({ name }) => name)).toEqual([
      "temporal",
      "self-rewarding",
      "temporal (true)",
      "self-rewarding (true)",
    ]);
    expect(gap?.series[0]?.points).toEqual(
      [
        [1, 3.67, 3.57, 3.77],
        [2, 3.67, 3.57, 3.77],
      ].map((point) => point.map((value) => expect.closeTo(value, 6) as number)),
    );
    const compute = charts.get("score-by-compute");
    expect(compute?.xName).toBe("TFLOPs");
    expect(compute?.series[0]?.points.map(([x, y]) => [x, y])).toEqual([
      [0, 2.5],
      [4, 3],
      [8, 3.5],
    ]);
    expect(charts.get("margin")?.series[0]?.points.map(([x]) => x)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(charts.get("win-rate")?.series[0]?.points.map(([x]) => x)).toEqual([1, 2]);
  });

  test("without a true score leave it out", () => {
    const run = sampleRun();
    for (const strategy of run.result.strategies) {
      for (const model of strategy.models) {
        model.trueScore = null;
        model.judge.spearman = null;
        model.judge.spearmanOwn = null;
      }
      for (const { phases } of strategy.iterations) for (const phase of phases) phase.trueGap = null;
    }
    const ids = chartsOf(run).map((chart) => chart.id);
    expect(ids).not.toContain("true-score");
    expect(ids).not.toContain("judge-spearman");
    expect(ids).not.toContain("judge-spearman-own");
    expect(ids).toContain("score-gap");
  });
});

describe("a judge that is a weighted sum", () => {
  test("has a curve for each of its parts, and the score that it gives is shown where there is no true one", () => {
    const run = sampleRun();
    run.result.graded = false;
    for (const { models } of run.result.strategies) {
      models.forEach((model, index) => {
        model.judgedParts = { bullets: estimate(index), quality: estimate(0.5) };
      });
    }
    const charts = new Map(chartsOf(run).map((chart) => [chart.id, chart]));
    expect(charts.get("part-bullets")?.series[0]?.points.map(([, y]) => y)).toEqual([0, 1, 2]);
    expect(charts.get("part-quality")?.series).toHaveLength(2);
    expect(charts.get("judged-score")?.series[0]?.points.map(([, y]) => y)).toEqual([2.5, 3, 3.5]);
    expect(summaryTable(run.result)).toContain("judged score");
  });
});

describe("the terminal's tables", () => {
  test("name the best model of each strategy, and what measured the gap", () => {
    const text = summaryTable(sampleRun().result);
    expect(text).toContain(
      "Best on the held-out prompts: temporal M2 (true score 3.50 ± 0.10), self-rewarding M1 (true score 3.00 ± 0.10)",
    );
    expect(text).toContain("The score gap of the pairs is measured by held-back judgements.");
  });

  test("list M0 once and every strategy's models under its name", () => {
    const lines = summaryTable(sampleRun().result).split("\n");
    expect(lines.filter((line) => line.startsWith("M0"))).toHaveLength(1);
    const temporal = lines.indexOf("temporal");
    expect(lines[temporal + 1]).toMatch(
      /^ {2}M1 +3\.00 ± 0\.10 +62 % ± 5 +59 % ± 5 +3\.67 ± 0\.10 +0\.912 +25 +3\.1 % +6\.90k +4\.00T +0\.66 +0\.61$/,
    );
    expect(lines[temporal + 2]).toMatch(/^ {2}M2 .+ 13\.8k +8\.00T/);
    expect(lines[lines.indexOf("self-rewarding") + 1]).toMatch(/^ {2}M1/);
  });

  test("and the page say what the pairs' texts do not give again, and that many answers were cut off", async () => {
    const run = sampleRun();
    expect(summaryTable(run.result)).toContain(
      "temporal: 4 of 100 pairs have a text that does not give the trained ids",
    );
    expect(summaryTable(run.result)).not.toContain("favour short answers");
    const [temporal] = run.result.strategies;
    for (const { phases } of temporal?.iterations ?? []) {
      for (const phase of phases) Object.assign(phase, { textDiffers: 0, truncated: 100 });
    }
    expect(summaryTable(run.result)).not.toContain("temporal: 4 of");
    expect(summaryTable(run.result)).toContain("temporal: 22.3 % of the answers were cut off by length");
    expect(await renderReport(run)).toContain("22.3 % of the answers were cut off by length");
    run.result.settings.selection = { truncated: "keep" };
    expect(summaryTable(run.result)).toContain("were cut off by length, and train without an end token");
  });

  test("and the page say why a strategy ended early", async () => {
    const run = sampleRun();
    (run.result.strategies[1] as { stopped?: string }).stopped = "no <pairs> left";
    expect(summaryTable(run.result)).toContain("self-rewarding ended early: no <pairs> left");
    expect(await renderReport(run)).toContain("ended early: no &lt;pairs&gt; left");
  });

  test("and the page say what was left out for want of room", async () => {
    const run = sampleRun();
    expect(summaryTable(run.result)).not.toContain("left out");
    const first = { file: "p<1>.jsonl", row: 7, reason: "The prompt has 9000 tokens" };
    run.result.leftOut = { prompts: 3, first };
    const note =
      "3 prompts were left out, which have no room in the context. The first: The prompt has 9000 tokens (row 7 of";
    expect(summaryTable(run.result)).toContain(`${note} p<1>.jsonl)`);
    expect(await renderReport(run)).toContain(`${note} p&lt;1&gt;.jsonl)`);
  });

  test("give means over seeds with intervals", () => {
    const rows = [
      { strategy: "temporal", model: "M1", measure: "true score" as const, values: [3, 3.2], estimate: estimate(3.1) },
      { strategy: "temporal", model: "M1", measure: "win rate" as const, values: [0.6], estimate: estimate(0.6, null) },
    ];
    const text = studyTable({ format: 1, seeds: [0, 1], runs: ["seed-0", "seed-1"], rows });
    expect(text).toContain("seeds 0, 1");
    expect(text).toMatch(/temporal M1 +3\.10 ± 0\.10 +60 %/);
  });
});
