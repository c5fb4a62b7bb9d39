/** The part of jstat (which ships no types) that is used here. */
declare module "jstat" {
  const jstat: {
    /** Student's t with `degrees` degrees of freedom. */
    studentt: { inv(probability: number, degrees: number): number };
    /** The standard normal distribution's quantile when mean is 0 and deviation 1. */
    normal: { inv(probability: number, mean: number, deviation: number): number };
    /** Spearman's rank correlation; ties get their mean rank. */
    spearmancoeff(a: number[], b: number[]): number;
  };
  // CommonJS: of its names Node knows this one alone.
  export default jstat;
}
