/** Figures of one step under TRL's names. */
export interface LoggedRow {
  /** 1-based, over everything that the series has logged. */
  step: number;
  /** Milliseconds since 1970. */
  time: number;
  /** Of training steps, or of an evaluation. */
  kind: "train" | "eval";
  values: Readonly<Record<string, number>>;
}

export type Outcome = "finished" | "failed" | "stopped";

/** What a logger is opened for. */
export interface Series {
  /** Where a logger of files may write: a folder of this series' own. */
  folder: string;
  /** For people: "world-temporal/self-rewarding". */
  name: string;
  settings: Readonly<Record<string, unknown>>;
}

/** Takes one series of figures somewhere. Any method may throw; rows that a call of `log` threw on are not lost. */
export interface Logger {
  log(rows: readonly LoggedRow[]): Promise<void>;
  close(outcome: Outcome): Promise<void>;
}

/** As transformers' callbacks for TensorBoard and wandb name them, so that curves of both stand in one chart. */
export const prefixedValues = ({ kind, values }: LoggedRow): [name: string, value: number][] =>
  Object.entries(values).map(([name, value]) => [`${kind}/${name}`, value]);

/** "loss.beta": leaves of the settings by their paths. */
export function settingLeaves(value: unknown, path = ""): [path: string, value: unknown][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [[path, value]];
  return Object.entries(value).flatMap(([key, inner]) => settingLeaves(inner, path === "" ? key : `${path}.${key}`));
}
