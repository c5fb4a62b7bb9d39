import { TemporaError } from "@tempora/errors";
import jStat from "jstat";
import { sampleStandardDeviation } from "simple-statistics";
import { type WinRate, winRate } from "./statistics.ts";

/** Strength of the pull to 0 on both coefficients, in observations: it keeps a side that always wins finite. */
const ridge = 1;

/**
 * The win rate that a would have against b if their answers were equally long: the logistic regression of
 * Length-Controlled AlpacaEval (arXiv:2404.04475), without its term for the instruction's difficulty,
 *
 *     P(a wins) = σ(θ + φ · tanh((length a − length b) / their standard deviation)),
 *
 * of which σ(θ) is the rate; a tie counts half. The interval is that of θ. Where lengths do not differ there is nothing to
 * control, and it is the plain win rate.
 */
export function lengthControlledWinRate(
  a: readonly number[],
  b: readonly number[],
  lengthsA: readonly number[],
  lengthsB: readonly number[],
): WinRate {
  const plain = winRate(a, b);
  if (lengthsA.length !== a.length || lengthsB.length !== a.length) {
    throw new TemporaError(`A win rate of ${a.length} answers needs as many lengths on both sides`, {
      remedy: "Pass one length an answer, in the same order.",
    });
  }
  const differences = lengthsA.map((length, i) => length - (lengthsB[i] as number));
  const spread = differences.length < 2 ? 0 : sampleStandardDeviation(differences);
  if (!(spread > 0)) return plain;
  const outcomes = a.map((value, i) => (1 + Math.sign(value - (b[i] as number))) / 2);
  const { theta, error } = logisticFit(
    differences.map((difference) => Math.tanh(difference / spread)),
    outcomes,
  );
  const half = jStat.normal.inv(0.975, 0, 1) * error;
  return { ...plain, rate: sigmoid(theta), low: sigmoid(theta - half), high: sigmoid(theta + half) };
}

/** θ and its standard error in P(y) = σ(θ + φx), by Newton's method on the penalised likelihood, which is concave. */
function logisticFit(x: readonly number[], y: readonly number[]): { theta: number; error: number } {
  let theta = 0;
  let phi = 0;
  for (let step = 0; ; step++) {
    let [gradientTheta, gradientPhi] = [-ridge * theta, -ridge * phi];
    let [tt, tp, pp] = [ridge, 0, ridge];
    x.forEach((value, i) => {
      const p = sigmoid(theta + phi * value);
      const residual = (y[i] as number) - p;
      const weight = p * (1 - p);
      gradientTheta += residual;
      gradientPhi += residual * value;
      tt += weight;
      tp += weight * value;
      pp += weight * value * value;
    });
    const determinant = tt * pp - tp * tp;
    const [moveTheta, movePhi] = [
      (pp * gradientTheta - tp * gradientPhi) / determinant,
      (tt * gradientPhi - tp * gradientTheta) / determinant,
    ];
    if (step === 50 || Math.abs(moveTheta) + Math.abs(movePhi) < 1e-12) {
      return { theta, error: Math.sqrt(pp / determinant) };
    }
    theta += moveTheta;
    phi += movePhi;
  }
}

function sigmoid(value: number): number {
  return 1 / (1 + Math.exp(-value));
}
