import type { Chart } from "./charts.ts";

interface Scale {
  /** Differences well below this are noise: a curve that spans less does not fill its chart. */
  least: number;
  /** What the values cannot leave. */
  bounds?: readonly [low: number, high: number];
}

const share: Scale = { least: 0.3, bounds: [0, 1] };
const correlation: Scale = { least: 0.5, bounds: [-1, 1] };

const scales: Record<string, Scale> = {
  "true-score": { least: 2, bounds: [0, 5] },
  "score-by-compute": { least: 2, bounds: [0, 5] },
  "win-rate": share,
  "score-gap": { least: 1 },
  cosine: { least: 0.3, bounds: [-1, 1] },
  margin: { least: 0.5 },
  "dpo-weight": share,
  loss: { least: 0.3 },
  accuracy: share,
  "judge-spearman": correlation,
  "judge-spearman-own": correlation,
  "judge-failures": { least: 0.1, bounds: [0, 1] },
  "judge-ties": share,
};

/** Sizes, counts and rates of faults, whose zero means something. */
const fromZero = new Set([
  "pair-count",
  "answer-length",
  "token-entropy",
  "distinct-words",
  "grad-norm",
  "judge-failures",
  "judge-ties",
]);

/** Of a scale that is not known, this share of the largest value is a difference worth a look. */
const leastShare = 0.3;

/**
 * The y axis of a chart: what its points and their intervals span, but no less than a difference of that measure worth a
 * look, and ending at round numbers. An axis fitted to the points alone makes noise look like news.
 */
export function axisRange(chart: Omit<Chart, "range">): [low: number, high: number] {
  const values = chart.series.flatMap(({ points }) =>
    points.flatMap(([, y, low, high]) => [y, low ?? y, high ?? y].filter(Number.isFinite)),
  );
  const [smallest, largest] = [Math.min(...values), Math.max(...values)];
  const size = Math.max(Math.abs(smallest), Math.abs(largest));
  const own = chart.percent === true && chart.id === "score-by-compute" ? share : scales[chart.id];
  const scale = own ?? (chart.percent === true ? share : { least: leastShare * size || 1 });
  const zero = fromZero.has(chart.id);
  let [low, high] = zero ? [Math.min(0, smallest), largest] : [smallest, largest];
  const missing = Math.max(0, scale.least - (high - low));
  if (!zero) [low, high] = [low - missing / 2, high + missing / 2];
  else if (own !== undefined) high += missing;
  if (high === low) high = low + 1;
  return rounded(inBounds([low, high], scale.bounds), scale.bounds);
}

/** Moved into the bounds without becoming shorter, where they leave the room. */
function inBounds([low, high]: [number, number], bounds: Scale["bounds"]): [number, number] {
  if (bounds === undefined) return [low, high];
  const [least, most] = bounds;
  const shift = Math.max(0, least - low) - Math.max(0, high - most);
  return [Math.max(least, low + shift), Math.min(most, high + shift)];
}

/** Widened to multiples of a step of 1, 2 or 5 times a power of ten, of which the axis holds about five. */
function rounded([low, high]: [number, number], bounds: Scale["bounds"]): [number, number] {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const exact = (multiple: number) => Number((multiple * step).toPrecision(12));
  const [from, to] = [exact(Math.floor(low / step + 1e-9)), exact(Math.ceil(high / step - 1e-9))];
  return bounds === undefined ? [from, to] : [Math.max(bounds[0], from), Math.min(bounds[1], to)];
}
