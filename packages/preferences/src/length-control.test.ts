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

  it("maximises the penalised likelihood", () => {
    const wins = list((index) => Math.sign(Math.sin(index) + 0.3 * Math.sin(7 * index)));
    const lengths = list((index) => 100 + 40 * Math.sin(index) + 10 * Math.cos(3 * index));
    const { rate } = lengthControlledWinRate(
      wins,
      zeros,
      lengths,
      list(() => 100),
    );
    const differences = lengths.map((length) => length - 100);
    const mean = differences.reduce((sum, value) => sum + value, 0) / count;
    const spread = Math.sqrt(differences.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1));
    const likelihood = (theta: number, phi: number) =>
      wins.reduce(
        (sum, win, i) => {
          const p = 1 / (1 + Math.exp(-theta - phi * Math.tanh((differences[i] as number) / spread)));
          return sum + ((1 + win) / 2) * Math.log(p) + ((1 - win) / 2) * Math.log(1 - p);
        },
        -(theta ** 2 + phi ** 2) / 2,
      );
    let best = { value: Number.NEGATIVE_INFINITY, theta: 0 };
    for (let theta = -2; theta <= 2; theta += 0.01) {
      for (let phi = 0; phi <= 10; phi += 0.05) {
        const value = likelihood(theta, phi);
        if (value > best.value) best = { value, theta };
      }
    }
    expect(Math.log(rate / (1 - rate))).toBeCloseTo(best.theta, 1);
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
