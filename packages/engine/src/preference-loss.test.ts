import { describe, expect, test } from "vitest";
import { type LossType, lossTypes, type PreferenceLoss } from "./losses.ts";
import { type PreferenceSums, preferenceLoss } from "./preference-loss.ts";

const sums: PreferenceSums = {
  policyChosen: Float64Array.from([-20.5, -31.2, -12.1, -44]),
  policyRejected: Float64Array.from([-25.1, -28.7, -19.4, -40.3]),
  referenceChosen: Float64Array.from([-22.3, -30.1, -12.9, -41.8]),
  referenceRejected: Float64Array.from([-24.6, -29.9, -17.2, -42.6]),
  chosenLengths: Int32Array.from([9, 14, 5, 20]),
  rejectedLengths: Int32Array.from([11, 12, 8, 17]),
};

function mean(loss: PreferenceLoss, at: PreferenceSums): number {
  return preferenceLoss(loss, at).pairLosses.reduce((sum, value) => sum + value, 0) / at.policyChosen.length;
}

describe.each(lossTypes)("%s", (type: LossType) => {
  const smoothings = type === "exo_pair" ? [0.1, 0.3] : [0, 0.1];
  test.each(smoothings)("has the derivatives that finite differences give, smoothing %d", (labelSmoothing) => {
    const loss: PreferenceLoss = { terms: [{ type, weight: 1.5 }], beta: 0.2, labelSmoothing };
    const { dChosen, dRejected } = preferenceLoss(loss, sums);
    const step = 1e-5;
    for (const [side, derivatives] of [
      ["policyChosen", dChosen],
      ["policyRejected", dRejected],
    ] as const) {
      for (let pair = 0; pair < 4; pair++) {
        const moved = (by: number) => {
          const values = Float64Array.from(sums[side]);
          values[pair] = (values[pair] as number) + by;
          return mean(loss, { ...sums, [side]: values });
        };
        const slope = (moved(step) - moved(-step)) / (2 * step);
        expect(Math.abs(slope - (derivatives[pair] as number)), `${side} of pair ${pair}`).toBeLessThan(1e-7);
      }
    }
  });
});

test("sigmoid with label smoothing is conservative DPO: so often the pair counts the other way round", () => {
  const terms = [{ type: "sigmoid", weight: 1 }] as const;
  const swapped: PreferenceSums = {
    policyChosen: sums.policyRejected,
    policyRejected: sums.policyChosen,
    referenceChosen: sums.referenceRejected,
    referenceRejected: sums.referenceChosen,
    chosenLengths: sums.rejectedLengths,
    rejectedLengths: sums.chosenLengths,
  };
  const plain = { terms, beta: 0.2 };
  const expected = 0.9 * mean(plain, sums) + 0.1 * mean(plain, swapped);
  expect(mean({ ...plain, labelSmoothing: 0.1 }, sums)).toBeCloseTo(expected, 12);
});

test("a weighted sum is the sum of its terms", () => {
  const terms = [
    { type: "sigmoid", weight: 1 },
    { type: "sft", weight: 0.3 },
    { type: "ipo", weight: 0.01 },
  ] as const;
  const apart = terms.map((term) => mean({ terms: [term], beta: 0.1 }, sums));
  expect(mean({ terms, beta: 0.1 }, sums)).toBeCloseTo(
    apart.reduce((a, b) => a + b),
    12,
  );
});

test("arrays of different lengths are refused by name", () => {
  const short = { ...sums, referenceChosen: new Float64Array(3) };
  expect(() => preferenceLoss({ terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 }, short)).toThrow(
    "referenceChosen has 3 entries for 4 pairs",
  );
});
