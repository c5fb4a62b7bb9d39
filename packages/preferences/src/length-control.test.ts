import { describe, expect, it } from "vitest";
import { lengthControlledWinRate } from "./length-control.ts";
import { winRate } from "./statistics.ts";

const count = 400;
const list = (value: (index: number) => number) => Array.from({ length: count }, (_, index) => value(index));
const zeros = list(() => 0);

describe("lengthControlledWinRate", () => {
  it("is the plain one where lengths have nothing to do with winning", () => {
    const wins = list((index) => (index % 5 < 3 ? 1 : -1));
    const lengths = list((index) => 100 + (Math.floor(index / 5) % 2 === 0 ? 20 : -20));
    const controlled = lengthControlledWinRate(
      wins,
      zeros,
      lengths,
      list(() => 100),
    );
    expect(controlled.rate).toBeCloseTo(0.6, 2);
    const plain = winRate(wins, zeros);
    expect(controlled.low).toBeCloseTo(plain.low as number, 2);
    expect(controlled.high).toBeCloseTo(plain.high as number, 2);
    expect(controlled).toMatchObject({ wins: 240, losses: 160, count });
  });

  it("takes away what longer answers win by being longer", () => {
    // Of the longer answers 80 % win, of the shorter 20 %; three quarters of a's are longer.
    const longer = (index: number) => index % 4 !== 0;
    const wins = list((index) => (Math.floor(index / 4) % 5 === 0 ? -1 : 1) * (longer(index) ? 1 : -1));
    const lengths = list((index) => (longer(index) ? 150 : 50));
    const controlled = lengthControlledWinRate(
      wins,
      zeros,
      lengths,
      list(() => 100),
    );
    expect(winRate(wins, zeros).rate).toBeCloseTo(0.65, 2);
    expect(controlled.rate).toBeCloseTo(0.5, 1);
    expect(controlled.low).toBeLessThan(controlled.rate);
  });

  it("maximises the penalised likelihood, with the interval of its curvature", () => {
    // Few rows, so that the penalty shows, and differences of which some are far out.
    const wins = [1, 1, 1, -1, 1, 0, 1, -1, 1, 1, -1, 1];
    const differences = [3, 250, 12, -20, 4, 0, 30, 8, -5, 400, -60, 15];
    const none = wins.map(() => 0);
    const lengths = differences.map((difference) => 500 + difference);
    const given = lengthControlledWinRate(
      wins,
      none,
      lengths,
      wins.map(() => 500),
    );
    const mean = differences.reduce((sum, value) => sum + value, 0) / wins.length;
    const spread = Math.sqrt(differences.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (wins.length - 1));
    const likelihood = (theta: number, phi: number) =>
      wins.reduce(
        (sum, win, i) => {
          const p = 1 / (1 + Math.exp(-theta - phi * Math.tanh((differences[i] as number) / spread)));
          return sum + ((1 + win) / 2) * Math.log(p) + ((1 - win) / 2) * Math.log(1 - p);
        },
        -(theta ** 2 + phi ** 2) / 2,
      );
    // It is concave: the best φ of each θ, and the best θ of those, by halving intervals.
    const highest = (value: (at: number) => number) => {
      let [low, high] = [-5, 5];
      while (high - low > 1e-7) {
        const [left, right] = [low + (high - low) / 3, high - (high - low) / 3];
        if (value(left) < value(right)) low = left;
        else high = right;
      }
      return (low + high) / 2;
    };
    const profile = (theta: number) =>
      likelihood(
        theta,
        highest((phi) => likelihood(theta, phi)),
      );
    const theta = highest(profile);
    const logit = (rate: number | null) => Math.log((rate ?? Number.NaN) / (1 - (rate ?? Number.NaN)));
    expect(logit(given.rate)).toBeCloseTo(theta, 4);
    const step = 1e-2;
    const curvature = (2 * profile(theta) - profile(theta + step) - profile(theta - step)) / step ** 2;
    const half = 1.959964 / Math.sqrt(curvature);
    expect(logit(given.high) - theta).toBeCloseTo(half, 3);
    expect(theta - logit(given.low)).toBeCloseTo(half, 3);
  });

  it("stays finite where one side always wins, and plain where all are equally long", () => {
    const ones = list(() => 1);
    const { rate, high } = lengthControlledWinRate(
      ones,
      zeros,
      list((index) => 100 + index),
      list(() => 100),
    );
    expect(rate).toBeGreaterThan(0.9);
    expect(high).toBeLessThan(1);
    expect(lengthControlledWinRate(ones, zeros, zeros, zeros)).toEqual(winRate(ones, zeros));
    expect(() => lengthControlledWinRate(ones, zeros, [1], zeros)).toThrow(/as many lengths/);
  });
});
