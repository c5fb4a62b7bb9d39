import { describe, expect, test } from "vitest";
import {
  checkCoefficients,
  checkConfig,
  checkForest,
  checkLoss,
  checkNumber,
  checkPairs,
  checkTotals,
  completionLength,
} from "./check.ts";
import { type Forest, ForestBuilder } from "./forest.ts";
import type { LossType, PreferenceLoss } from "./losses.ts";
import { tinyConfig } from "./testing/models.ts";

function pairForest(): Forest {
  const builder = new ForestBuilder();
  const prompt = builder.add([1, 2]);
  builder.add([3], prompt);
  builder.add([4, 5], prompt);
  return builder.build();
}

const pair = { chosen: 1, rejected: 2, referenceChosen: -1, referenceRejected: -2 };

function loss(type: LossType, options: Partial<PreferenceLoss> = {}): PreferenceLoss {
  return { terms: [{ type, weight: 1 }], beta: 0.1, ...options };
}

describe("a forest", () => {
  test("names the token outside the vocabulary by node and position", () => {
    const forest = pairForest();
    forest.tokens[4] = 61;
    expect(() => checkForest(forest, tinyConfig)).toThrow(
      "Token id 61 at position 1 of node 2 lies outside the vocabulary of 61 tokens. Tokenize with this model's own tokenizer.",
    );
    forest.tokens[4] = -1;
    expect(() => checkForest(forest, tinyConfig)).toThrow("Token id -1 at position 1 of node 2");
  });

  test("names the node whose path is longer than the model takes", () => {
    const builder = new ForestBuilder();
    const prompt = builder.add(new Array(60).fill(1));
    builder.add([1, 1, 1, 1], prompt);
    expect([...checkForest(builder.build(), tinyConfig)]).toEqual([60, 64]);
    builder.add([1, 1, 1, 1, 1], prompt);
    expect(() => checkForest(builder.build(), tinyConfig)).toThrow(
      "The path to node 2 has 65 tokens, but the model takes 64. Shorten the prompt",
    );
  });

  test.each<[string, Partial<Forest>, string]>([
    ["no nodes", { nodeParent: new Int32Array(0) }, "The forest is empty"],
    ["missing marks", { nodeScored: new Uint8Array(2) }, "3 nodes, but 4 starts and 2 scored marks"],
    ["uncovered tokens", { tokens: new Int32Array(9) }, "do not cover its 9 tokens"],
    ["an empty node", { nodeStart: Int32Array.from([0, 2, 2, 5]) }, "Node 1 of the forest has no tokens"],
    ["a later parent", { nodeParent: Int32Array.from([-1, 2, 0]) }, "Node 1 of the forest has parent 2"],
    ["itself as parent", { nodeParent: Int32Array.from([-1, 1, 0]) }, "Node 1 of the forest has parent 1"],
  ])("with %s is refused", (_, change, message) => {
    expect(() => checkForest({ ...pairForest(), ...change }, tinyConfig)).toThrow(message);
  });
});

describe("pairs", () => {
  test.each([
    [{ ...pair, chosen: 3 }, "pairs[0].chosen is node 3, but the forest has nodes 0 to 2"],
    [{ ...pair, chosen: 0 }, "pairs[0].chosen is node 0, which has no scored tokens"],
    [{ ...pair, rejected: 1 }, "Chosen and rejected of pairs[0] are the same node 1"],
    [{ ...pair, referenceRejected: Number.NaN }, "pairs[0].referenceRejected is NaN. Score the pair"],
  ])("%o is refused", (bad, message) => {
    expect(() => checkPairs([bad], pairForest())).toThrow(message);
  });

  test("none at all are refused", () => {
    expect(() => checkPairs([], pairForest())).toThrow("There are no pairs");
  });

  test("count the scored tokens of a path, without the first of a scored root", () => {
    const builder = new ForestBuilder();
    const root = builder.add([1, 2, 3], -1, true);
    const middle = builder.add([4], root, false);
    const leaf = builder.add([5, 6], middle, true);
    expect(completionLength(builder.build(), leaf)).toBe(4);
  });
});

describe("a loss", () => {
  test.each([
    [loss("sigmoid", { terms: [] }), "The loss has no terms"],
    [loss("dpo" as LossType), "There is no loss type dpo. Use one of sigmoid"],
    [loss("sigmoid", { terms: [{ type: "sigmoid", weight: Number.NaN }] }), "the weight of sigmoid is NaN"],
    [loss("sigmoid", { beta: 0 }), "beta is 0 (field beta). Give a finite number, above 0."],
    [
      loss("robust", { labelSmoothing: 0.5 }),
      "labelSmoothing is 0.5 (field labelSmoothing). Give a finite number, at least 0, below 0.5.",
    ],
    [loss("exo_pair"), "exo_pair needs label smoothing (field labelSmoothing). Set labelSmoothing above 0"],
    [loss("discopop", { discopopTau: 0 }), "discopopTau is 0"],
  ])("%o is refused", (bad, message) => {
    expect(() => checkLoss(bad)).toThrow(message);
  });

  test("that couples pairs wants the whole batch in one call", () => {
    expect(() => checkTotals(loss("aot"), 2, 4, 10)).toThrow(
      "This call has 2 of 4 pairs, but an aot loss sorts over the whole batch",
    );
    expect(() => checkTotals(loss("sigmoid"), 2, 4, 10)).not.toThrow();
    expect(() => checkTotals(loss("sigmoid"), 2, 1, 10)).toThrow("totalPairs is 1");
  });
});

test("coefficients are one finite number a token", () => {
  const forest = pairForest();
  expect(() => checkCoefficients(new Float32Array(4), forest)).toThrow("4 coefficients for 5 tokens");
  expect(() => checkCoefficients(Float32Array.from([0, 0, Number.NaN, 0, 0]), forest)).toThrow("Coefficient 2 is NaN");
});

test("a model's sizes must fit together", () => {
  expect(() => checkConfig({ ...tinyConfig, kvHeads: 3 })).toThrow("4 heads cannot share 3 key/value heads");
  expect(() => checkConfig({ ...tinyConfig, headDim: 9 })).toThrow("headDim is 9");
  expect(() => checkConfig({ ...tinyConfig, layers: 3 })).toThrow("windows has 2 entries for 3 layers");
  expect(() => checkConfig({ ...tinyConfig, vocabSize: 0 })).toThrow("vocabSize is 0");
});

test("a number outside its range is named with the range", () => {
  expect(checkNumber(3, "n", { least: 1, integer: true })).toBe(3);
  expect(() => checkNumber(2.5, "n", { least: 1, integer: true })).toThrow(
    "n is 2.5 (field n). Give a whole number, at least 1.",
  );
  expect(() => checkNumber(Number.POSITIVE_INFINITY, "x")).toThrow("x is Infinity (field x). Give a finite number.");
});
