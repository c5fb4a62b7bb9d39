import { describe, expect, it } from "vitest";
import { aggregate } from "./aggregate.ts";
import { type AuditedResponse, auditJudgements, collapsed } from "./audit.ts";

describe("aggregate", () => {
  it("averages without rounding and leaves out what did not parse", () => {
    expect(aggregate([4, 3, 3])).toBeCloseTo(10 / 3, 12);
    expect(aggregate([4, null, 3])).toBe(3.5);
    expect(aggregate([null, null])).toBeNull();
    expect(aggregate([])).toBeNull();
    expect(aggregate([1, 5, 5], "median")).toBe(5);
  });
});

function rows(scores: Record<string, (number | null)[][]>): AuditedResponse[] {
  return Object.entries(scores).flatMap(([prompt, responses]) =>
    responses.map((list) => ({ prompt, verdicts: list.map((score) => score ?? "cut-off") })),
  );
}

describe("auditJudgements", () => {
  it("counts failures, spread and ties", () => {
    const audit = auditJudgements(
      rows({
        p: [
          [4, 2],
          [3, 3],
        ],
        q: [
          [5, null],
          [1, 1],
        ],
        r: [[2]],
      }),
    );
    expect(audit).toMatchObject({
      judgements: 9,
      failures: 1,
      failuresByReason: { "cut-off": 1 },
      histogram: [0, 2, 2, 2, 1, 1],
      equalShare: 0.25,
      prompts: 2,
      tieRate: 0.5,
    });
    expect(audit.failureRate).toBeCloseTo(1 / 9, 12);
    expect(audit.mean).toBeCloseTo(21 / 8, 12);
    expect(audit.variance).toBeCloseTo(69 / 8 - (21 / 8) ** 2, 12);
    expect(audit.noise).toBeCloseTo(1 / 3, 12);
  });

  it("has no spread to report where nothing parsed", () => {
    const audit = auditJudgements(rows({ p: [[null]] }));
    expect(audit).toMatchObject({ failureRate: 1, mean: null, variance: null, equalShare: null, tieRate: null });
  });
});

describe("collapsed", () => {
  const repeat = (scores: number[], times: number) =>
    Object.fromEntries(Array.from({ length: times }, (_, i) => [`p${i}`, scores.map((score) => [score])]));

  it("lets a judge pass that tells answers apart", () => {
    expect(collapsed(auditJudgements(rows(repeat([1, 3, 5], 20))))).toBeNull();
  });

  it("stops a judge that always answers 5", () => {
    const verdict = collapsed(auditJudgements(rows(repeat([5, 5, 5], 20))));
    expect(verdict?.reason).toBe("constant");
    expect(verdict?.counts).toContain("of 60 scores 100.0 % are the same");
    expect(verdict?.counts).toContain("0, 0, 0, 0, 0, 60 times");
  });

  it("stops a judge whose judgements do not parse, with the counts", () => {
    const verdict = collapsed(auditJudgements(rows({ p: [[null, null, 3]] })));
    expect(verdict?.reason).toBe("unparsed");
    expect(verdict?.counts).toBe("2 of 3 judgements gave no score (cut-off 2)");
    expect(verdict?.remedy).toContain("--judge expected");
    expect(verdict?.remedy).toContain("graded examples");
    const crowded: AuditedResponse[] = [{ prompt: "p", verdicts: ["no-room", "no-room", 3] }];
    expect(collapsed(auditJudgements(crowded))?.remedy).toContain("longer context");
  });

  it("stops when scores differ between prompts but never within one", () => {
    const scores = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`p${i}`, [[i % 5], [i % 5]]]));
    expect(collapsed(auditJudgements(rows(scores)))?.reason).toBe("ties");
  });

  it("concludes nothing from a handful of scores, and nothing from none", () => {
    expect(collapsed(auditJudgements(rows(repeat([5, 5], 3))))).toBeNull();
    expect(collapsed(auditJudgements([]))).toBeNull();
  });

  it("takes other limits", () => {
    const audit = auditJudgements(rows(repeat([1, 3, 5], 20)));
    expect(collapsed(audit, { minVariance: 10 })?.reason).toBe("constant");
  });
});
