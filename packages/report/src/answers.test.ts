import { Window } from "happy-dom";
import { describe, expect, test } from "vitest";
import { answersHtml, changesOf, distinctWords } from "./answers.ts";
import { chartsOf } from "./charts.ts";
import type { Run } from "./run-folder.ts";
import { sampleRun } from "./testing/sample-run.ts";

function open(run: Run) {
  const { document } = new Window();
  document.body.innerHTML = answersHtml(run);
  const texts = (selector: string) => [...document.querySelectorAll(selector)].map(({ textContent }) => textContent);
  const rows = [...document.querySelectorAll("tr")].map((row) =>
    [...row.querySelectorAll("td")].map(({ textContent }) => textContent),
  );
  return { document, texts, rows };
}

/** The sample with a judge that is a weighted sum, whose second part weighs nothing; what is not given stays. */
function judged(edit: (row: Run["answers"][number]["rows"][number], model: string, index: number) => void): Run {
  const run = sampleRun();
  run.result.graded = false;
  run.result.settings.judge = {
    functions: [
      { name: "bullets", weight: 1 },
      { name: "facts", weight: 0 },
    ],
  };
  for (const { model, rows } of run.answers) {
    rows.forEach((row, index) => {
      row.judged_score = row.true_score;
      row.true_score = null;
      row.judged_parts = { bullets: model === "M0" ? 1 : 4 + (index % 2), facts: index % 2 };
      edit(row, model, index);
    });
  }
  return run;
}

describe("answers side by side", () => {
  test("are twenty of M0 and of each strategy's best and last model, to the same prompts", () => {
    const run = sampleRun();
    (run.result.strategies[0] as { best: string }).best = "M1";
    const { document, texts } = open(run);
    expect(document.querySelectorAll(".held-out")).toHaveLength(20);
    expect(texts(".held-out:nth-of-type(3) .prompt")).toEqual(["held out 2 <i>"]);
    expect(texts(".held-out:nth-of-type(3) .facts b")).toEqual([
      "M0",
      "temporal M1 (best)",
      "temporal M2 (last)",
      "self-rewarding M1 (best and last)",
    ]);
    expect(texts(".held-out:nth-of-type(3) .answer")).toEqual([
      "answer 2 of M0",
      "answer 2 of M1",
      "answer 2 of M2",
      "answer 2 of M1",
    ]);
  });

  test("carry their length, whether they were cut off, and their score", () => {
    const { texts } = open(sampleRun());
    expect(texts(".held-out:nth-of-type(2) .facts")[1]).toBe(
      "temporal M2 (best and last) · 9 tokens, cut off · true score 5.00",
    );
  });

  test("carry each part of a judge that is a weighted sum", () => {
    const { texts } = open(judged(() => {}));
    expect(texts(".held-out:nth-of-type(2) .facts")[1]).toBe(
      "temporal M2 (best and last) · 9 tokens, cut off · judged score 5.00 · bullets 5.00 · facts 1.00",
    );
  });

  test("are text, never markup", () => {
    const { document, texts } = open(sampleRun());
    expect(document.querySelector("script")).toBeNull();
    expect(texts(".held-out:nth-of-type(1) .answer")[0]).toBe("</script><script>alert(2)</script>");
  });

  test("of runs with other held-out prompts, or another M0, stand by their own prompt", () => {
    const run = sampleRun();
    const [first, second] = run.answers.filter(({ strategy }) => strategy === "self-rewarding");
    for (const row of first?.rows ?? []) row.text = "another M0";
    second?.rows.shift();
    const { texts } = open(run);
    expect(texts(".held-out:nth-of-type(1) .facts").slice(2)).toEqual([
      "self-rewarding M0 · 8 tokens · true score 2.00",
      "self-rewarding M1 (best and last) · not one of its held-out prompts",
    ]);
    expect(texts(".held-out:nth-of-type(3) .answer").slice(2)).toEqual(["another M0", "answer 2 of M1"]);
  });

  test("are not there before a model was evaluated", () => {
    const run = sampleRun();
    run.result.strategies = [];
    expect(answersHtml(run)).toContain("No held-out answers yet");
  });
});

describe("what changed from M0 to a model", () => {
  const change = (run: Run, measure: string) =>
    changesOf(run, "temporal", "M0", "M2").find((one) => one.measure === measure);

  test("is measured on the same prompts, in intervals of the difference", () => {
    // Differences of 3 (13 prompts) and 4 (12): mean 3.48, half of the interval 2.0639 · 0.50990 / 5.
    const bullets = change(
      judged(() => {}),
      "bullets",
    );
    expect(bullets?.first.mean).toBe(1);
    expect(bullets?.later.mean).toBeCloseTo(4.48, 12);
    expect(bullets?.difference.mean).toBeCloseTo(3.48, 12);
    expect((bullets?.difference.high ?? 0) - 3.48).toBeCloseTo(0.21047, 4);
    expect(bullets?.verdict).toBe("up by 16.5 intervals");
  });

  test("says that length stays within its interval, or that it does not", () => {
    expect(
      change(
        judged(() => {}),
        "answer tokens",
      )?.verdict,
    ).toBe("within its interval");
    const shorter = judged((row, model, index) => {
      if (model === "M2") row.tokens -= 3 + (index % 2);
    });
    expect(change(shorter, "answer tokens")?.verdict).toBe("down by 16.5 intervals");
    const { rows } = open(shorter);
    expect(rows).toContainEqual(["temporal: M0 to M2 (best and last)"]);
    expect(rows).toContainEqual([
      "answer tokens",
      "8.96 ± 0.35",
      "5.48 ± 0.40",
      "-3.48 ± 0.21",
      "down by 16.5 intervals",
    ]);
  });

  test("names the parts that the judge does not see", () => {
    const { rows } = open(judged(() => {}));
    const measures = rows.map(([measure]) => measure);
    expect(measures.slice(2, 7)).toEqual([
      "judged score",
      "bullets",
      "facts (the judge gives it no weight)",
      "answer tokens",
      "distinct words",
    ]);
  });

  test("leaves out prompts where one side has no score", () => {
    const run = judged((row, model, index) => {
      if (model === "M2" && index < 5) row.judged_score = null;
    });
    expect(change(run, "judged score")?.difference.count).toBe(20);
  });
});

describe("curves over the models", () => {
  test("show length and distinct words with their intervals", () => {
    const run = judged((row, model) => {
      if (model === "M2") row.text = "The the THE end.";
    });
    const charts = new Map(chartsOf(run).map((chart) => [chart.id, chart]));
    const [, , last] = charts.get("distinct-words")?.series[0]?.points ?? [];
    expect(last).toEqual([2, 2, 2, 2]);
    const [first] = charts.get("answer-length")?.series[0]?.points ?? [];
    expect(first?.[1]).toBeCloseTo(8.96, 12);
    expect(first?.[3]).toBeCloseTo(9.307, 4);
  });

  test("count words of any script, whatever their case", () => {
    const row = sampleRun().answers[0]?.rows[0];
    if (row === undefined) throw new Error("the sample has answers");
    expect(distinctWords({ ...row, text: "Über über, Größe 12 12 мир Мир" })).toBe(4);
    expect(distinctWords({ ...row, text: " … " })).toBe(0);
  });
});
