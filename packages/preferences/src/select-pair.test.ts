import { describe, expect, it } from "vitest";
import {
  type Judged,
  noSelection,
  type SelectionSettings,
  selectPair,
  selectPairs,
  truncationWarning,
} from "./select-pair.ts";
import { pastIndex, rolesOf, strategies, strategyVariant } from "./strategies.ts";

interface Answer extends Judged {
  id: string;
}

function pool(role: string, ...scores: (number | null)[]): Answer[] {
  return scores.map((score, i) => ({
    id: `${role}/${i}`,
    text: `${role} answer ${i}`,
    score,
    length: 10 + i,
    truncated: false,
  }));
}

const selfRewarding = strategies["self-rewarding"].phases[0]!;
const [phase1, phase2] = [strategies.temporal.phases[0]!, strategies.temporal.phases[1]!];

function ids(selection: ReturnType<typeof selectPair<Answer>>): unknown {
  return "dropped" in selection ? selection.dropped : [selection.chosen.id, selection.rejected.id];
}

describe("self-rewarding", () => {
  it("takes the best and the worst of the current model, the first among equals", () => {
    expect(ids(selectPair(selfRewarding, { current: pool("M1", 3, 5, 5, 1, 1) }))).toEqual(["M1/1", "M1/3"]);
  });

  it("drops ties", () => {
    expect(ids(selectPair(selfRewarding, { current: pool("M1", 3, 3, 3) }))).toBe("tie");
    expect(ids(selectPair(selfRewarding, { current: pool("M1", 3) }))).toBe("tie");
  });

  it("never lets an answer without a score win either side", () => {
    expect(ids(selectPair(selfRewarding, { current: pool("M1", null, 4, 2, null) }))).toEqual(["M1/1", "M1/2"]);
    expect(ids(selectPair(selfRewarding, { current: pool("M1", null, null) }))).toBe("no-scores");
    expect(ids(selectPair(selfRewarding, { current: pool("M1", Number.NaN) }))).toBe("no-scores");
    expect(ids(selectPair(selfRewarding, { current: [] }))).toBe("no-scores");
  });

  it("drops a pair of one and the same text", () => {
    const answers = pool("M1", 4, 2).map((answer) => ({ ...answer, text: "same" }));
    expect(ids(selectPair(selfRewarding, { current: answers }))).toBe("identical-text");
  });

  it("keeps fractions of a point apart", () => {
    expect(ids(selectPair(selfRewarding, { current: pool("M1", 10 / 3, 3) }))).toEqual(["M1/0", "M1/1"]);
  });

  it("keeps only pairs further apart than the smallest gap", () => {
    const pools = { current: pool("M1", 4, 3) };
    expect(ids(selectPair(selfRewarding, pools, { minimumGap: 1 }))).toBe("tie");
    expect(ids(selectPair(selfRewarding, pools, { minimumGap: 0.9 }))).toEqual(["M1/0", "M1/1"]);
  });
});

describe("temporal, phase 1", () => {
  it("rejects the past model's worst answer where it is strictly worse", () => {
    const current = pool("M1", 4, 2);
    expect(ids(selectPair(phase1, { current, past: pool("M0", 3, 1) }))).toEqual(["M1/0", "M0/1"]);
    expect(ids(selectPair(phase1, { current, past: pool("M0", 3, 2) }))).toEqual(["M1/0", "M1/1"]);
    expect(ids(selectPair(phase1, { current, past: pool("M0", 5, 3) }))).toEqual(["M1/0", "M1/1"]);
  });

  it("never takes chosen from the past", () => {
    expect(ids(selectPair(phase1, { current: pool("M1", 2, 2), past: pool("M0", 5, 1) }))).toEqual(["M1/0", "M0/1"]);
  });

  it("falls back to the current model where the past has no scores", () => {
    expect(ids(selectPair(phase1, { current: pool("M1", 4, 2), past: pool("M0", null) }))).toEqual(["M1/0", "M1/1"]);
  });

  it("is self-rewarding when the past is the current pool", () => {
    const current = pool("M0", 4, 1, 3);
    expect(ids(selectPair(phase1, { current, past: current }))).toEqual(["M0/0", "M0/1"]);
  });

  it("says which pool is missing", () => {
    expect(() => selectPair(phase1, { current: pool("M1", 4, 2) })).toThrow(/needs answers of the past model/);
  });
});

describe("temporal, phase 2", () => {
  const current = pool("M1", 4, 2);
  const past = pool("M0", 1);

  it("chooses the future model's best answer where it is strictly better", () => {
    expect(ids(selectPair(phase2, { current, past, future: pool("F", 3, 5) }))).toEqual(["F/1", "M0/0"]);
    expect(ids(selectPair(phase2, { current, past, future: pool("F", 3, 4) }))).toEqual(["M1/0", "M0/0"]);
  });

  it("can make a pair of a prompt that phase 1 dropped", () => {
    const tied = pool("M1", 2, 2);
    const samePast = pool("M0", 2);
    expect(ids(selectPair(phase1, { current: tied, past: samePast }))).toBe("tie");
    expect(ids(selectPair(phase2, { current: tied, past: samePast, future: pool("F", 3) }))).toEqual(["F/0", "M1/0"]);
  });
});

describe("the ablations", () => {
  const pools = { current: pool("M1", 4, 2), past: pool("M0", 1), future: pool("F", 5) };

  it("use only the past, or only the future", () => {
    expect(ids(selectPair(strategies["past-only"].phases[0]!, pools))).toEqual(["M1/0", "M0/0"]);
    expect(ids(selectPair(strategies["future-only"].phases[0]!, pools))).toEqual(["M1/0", "M1/1"]);
    expect(ids(selectPair(strategies["future-only"].phases[1]!, pools))).toEqual(["F/0", "M1/1"]);
  });

  it("name the pools they read", () => {
    const roles = Object.values(strategies).map(({ name, phases }) => [name, phases.map(rolesOf)]);
    const temporal = [
      ["past", "current"],
      ["past", "current", "future"],
    ];
    expect(Object.fromEntries(roles)).toEqual({
      temporal,
      "temporal-previous": temporal,
      "temporal-continued": temporal,
      "temporal-previous-continued": temporal,
      "self-rewarding": [["current"]],
      "past-only": [["past", "current"]],
      "future-only": [["current"], ["current", "future"]],
    });
  });

  it("end every strategy with the next model", () => {
    for (const { phases } of Object.values(strategies)) expect(phases.at(-1)!.trains).toBe("next");
  });
});

describe("a strategy's variants", () => {
  it("are named by what past means and where the next model starts from", () => {
    const named = Object.entries(strategies).map(([key, { name, past, phases }]) => {
      expect(name).toBe(key);
      return [name, past, phases.at(-1)?.startsFrom];
    });
    expect(named).toEqual([
      ["temporal", "first", "current"],
      ["temporal-previous", "previous", "current"],
      ["temporal-continued", "first", "future"],
      ["temporal-previous-continued", "previous", "future"],
      ["self-rewarding", "first", "current"],
      ["past-only", "first", "current"],
      ["future-only", "first", "current"],
    ]);
    // The temporary model starts from the current one in all of them.
    for (const { phases } of Object.values(strategies)) {
      for (const { trains, startsFrom } of phases) if (trains === "future") expect(startsFrom).toBe("current");
    }
  });

  it("take the first model, the previous one or one k before for the past", () => {
    expect([0, 1, 3].map((current) => pastIndex("first", current))).toEqual([0, 0, 0]);
    expect([0, 1, 3].map((current) => pastIndex("previous", current))).toEqual([0, 0, 2]);
    expect([0, 1, 3].map((current) => pastIndex({ lag: 2 }, current))).toEqual([0, 0, 1]);
  });

  it("let the next model go on from the future one, where there is one", () => {
    const starts = (name: "temporal" | "self-rewarding", nextStartsFrom: "current" | "future") =>
      strategyVariant(name, { past: "previous", nextStartsFrom }).phases.map(({ startsFrom }) => startsFrom);
    expect(starts("temporal", "current")).toEqual(["current", "current"]);
    expect(starts("temporal", "future")).toEqual(["current", "future"]);
    expect(starts("self-rewarding", "future")).toEqual(["current"]);
    const own = { past: null, nextStartsFrom: null };
    const named = strategyVariant("temporal-previous-continued", own);
    expect(strategyVariant("temporal", { past: "previous", nextStartsFrom: "future" })).toEqual({
      ...named,
      name: "temporal",
      description: strategies.temporal.description,
    });
    expect(strategyVariant("temporal-previous", own).phases).toEqual(strategies.temporal.phases);
    expect(strategyVariant("temporal-continued", own).past).toBe("first");
    expect(strategyVariant("temporal", { past: "previous", nextStartsFrom: "future" }).past).toBe("previous");
  });
});

describe("length control", () => {
  const answer = (id: string, score: number, length: number): Answer => ({
    id,
    text: id,
    score,
    length,
    truncated: false,
  });
  const current = [
    answer("a", 5, 90),
    answer("b", 4.6, 20),
    answer("c", 4, 10),
    answer("d", 1.3, 80),
    answer("e", 1, 30),
  ];

  it("chooses the shortest of the top band and rejects the longest of the bottom band", () => {
    expect(ids(selectPair(selfRewarding, { current }, { lengthControl: { rho: 0.1 } }))).toEqual(["b", "d"]);
  });

  it("changes nothing at rho 0 and when it is off", () => {
    expect(ids(selectPair(selfRewarding, { current }, { lengthControl: { rho: 0 } }))).toEqual(["a", "e"]);
    expect(ids(selectPair(selfRewarding, { current }, { lengthControl: null }))).toEqual(["a", "e"]);
  });

  it("still keeps only pairs whose chosen scores higher", () => {
    expect(ids(selectPair(selfRewarding, { current }, { lengthControl: { rho: 1 } }))).toBe("tie");
  });

  it("refuses a rho outside 0..1", () => {
    expect(() => selectPair(selfRewarding, { current }, { lengthControl: { rho: 1.5 } })).toThrow(/rho is 1.5/);
  });
});

describe("truncated answers", () => {
  const cut = (answers: Answer[], ...which: number[]) =>
    answers.map((answer, i) => ({ ...answer, truncated: which.includes(i) }));

  it("are left out on both sides, unless they are kept", () => {
    const current = cut(pool("M", 5, 4, 2, 1), 0, 3);
    expect(ids(selectPair(selfRewarding, { current }))).toEqual(["M/1", "M/2"]);
    expect(ids(selectPair(selfRewarding, { current }, { truncated: "drop" }))).toEqual(["M/1", "M/2"]);
    expect(ids(selectPair(selfRewarding, { current }, { truncated: "keep" }))).toEqual(["M/0", "M/3"]);
  });

  it("are the reason where no other answer has a score", () => {
    const current = cut(pool("M", 5, 1, null), 0, 1);
    expect(ids(selectPair(selfRewarding, { current }))).toBe("truncated");
    expect(ids(selectPair(selfRewarding, { current: cut(pool("M", null), 0) }))).toBe("no-scores");
    const past = pool("M0", 3);
    expect(ids(selectPair(phase1, { current, past }))).toBe("truncated");
  });

  it("are the reason where what is left does not differ, and they do", () => {
    expect(ids(selectPair(selfRewarding, { current: cut(pool("M", 5, 1), 0) }))).toBe("truncated");
    expect(ids(selectPair(selfRewarding, { current: cut(pool("M", 5, 1, 1), 0) }))).toBe("truncated");
    expect(ids(selectPair(selfRewarding, { current: cut(pool("M", 1, 1), 0) }))).toBe("tie");
    expect(ids(selectPair(selfRewarding, { current: cut(pool("M", 5, 1), 0) }, { minimumGap: 4 }))).toBe("tie");
  });

  it("are told to the user when they are many", () => {
    const counts = { ...noSelection(), answers: 100, truncated: 20 };
    expect(truncationWarning(counts, {})).toBe(null);
    expect(truncationWarning({ ...counts, truncated: 21 }, {})).toMatch(/^21 of 100 answers \(21 %\) were cut off/);
    expect(truncationWarning({ ...counts, truncated: 21 }, { truncated: "keep" })).toBe(null);
    expect(truncationWarning(noSelection(), {})).toBe(null);
  });
});

describe("selectPairs", () => {
  async function select(prompts: Parameters<typeof selectPairs<Answer, string>>[1], settings: SelectionSettings = {}) {
    const counts = noSelection();
    const pairs = [];
    for await (const pair of selectPairs(selfRewarding, prompts, settings, counts)) pairs.push(pair);
    return { pairs, counts };
  }

  it("keeps the order of the prompts, counts what it drops, and passes on what else a candidate carries", async () => {
    const prompts = [
      { prompt: "p0", pools: { current: pool("M", 1, 2) } },
      { prompt: "p1", pools: { current: pool("M", 2, 2) } },
      { prompt: "p2", pools: { current: pool("M", null) } },
      { prompt: "p3", pools: { current: pool("M", 5, 2) } },
      { prompt: "p4", pools: { current: pool("M", 5, 2).map((one) => ({ ...one, truncated: true })) } },
    ];
    const { pairs, counts } = await select(prompts);
    expect(pairs.map(({ prompt, chosen, rejected }) => [prompt, chosen.id, rejected.id])).toEqual([
      ["p0", "M/1", "M/0"],
      ["p3", "M/0", "M/1"],
    ]);
    expect(counts).toEqual({
      pairs: 2,
      dropped: { tie: 1, "no-scores": 1, "identical-text": 0, truncated: 1 },
      answers: 9,
      truncated: 2,
    });
  });
});
