import { join } from "node:path";
import { Loggers } from "@tempora/logging";
import { type EventRow, type StrategyResult, silentObserver } from "@tempora/run";
import { readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { LoggingObserver } from "./log-to.ts";

const folder = await scratch();

const step = (run: number, strategy: string | null, loss: number): [string, EventRow] => [
  `runs/study/seed-${run}`,
  {
    ...{ event: "step", strategy, iteration: 1, phase: 2, model: "M1", step: 1, epoch: 1 },
    ...{ loss, grad_norm: 1, learning_rate: 1e-3, num_tokens: 10, "rewards/margins": 0.5 },
  },
];

test("a study's strategies are series of their own, whose steps go on over phases and iterations", async () => {
  const loggers = new Loggers({ kinds: ["jsonl"], folder, name: "study", settings: {}, warn: () => {} });
  const observer = new LoggingObserver(silentObserver, loggers, (run) => `${run.split("/").at(-1)}/`);
  observer.event(...step(1, null, 3));
  observer.event(...step(1, "temporal", 2));
  observer.event("runs/study/seed-1", {
    ...{ event: "stage", strategy: "temporal", iteration: 1, kind: "answers", label: "candidates", key: "0" },
  });
  observer.event(...step(1, "temporal", 1));
  const model = {
    trueScore: null,
    heldOutScore: { mean: 0.75 },
    winRate: null,
    answerLength: 4,
    judge: { tieRate: 0.1 },
  };
  const evaluated = {
    name: "temporal",
    iterations: [{ phases: [{ pairs: 3, scoreGap: { mean: 1.5 }, cosine: { mean: 1 } }] }],
  };
  observer.evaluated("runs/study/seed-1", { ...evaluated, models: [model] } as unknown as StrategyResult);
  observer.event(...step(2, "temporal", 5));
  await loggers.close("finished");
  const logged = (series: string) => readLines(join(folder, "jsonl", series, "metrics.jsonl"));
  expect(logged("seed-1/start")).toEqual([
    {
      step: 1,
      iteration: 1,
      epoch: 1,
      loss: 3,
      grad_norm: 1,
      learning_rate: 1e-3,
      num_tokens: 10,
      "rewards/margins": 0.5,
    },
  ]);
  expect(logged("seed-1/temporal")).toMatchObject([
    { step: 1, loss: 2 },
    { step: 2, loss: 1 },
    { step: 2, "eval/judged_score": 0.75, "eval/score_gap": 1.5, "eval/pairs": 3, "eval/judge_tie_rate": 0.1 },
  ]);
  expect(logged("seed-2/temporal")).toMatchObject([{ step: 1, loss: 5 }]);
});
