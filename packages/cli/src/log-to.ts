import { type LoggerKind, Loggers, loggerKinds } from "@tempora/logging";
import { type EventRow, ForwardingObserver, type Observer, type StrategyResult } from "@tempora/run";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Context } from "./context.ts";

export interface LogFlags {
  logTo?: LoggerKind[];
  logFolder?: string;
}

/** @param usual where the files go by default, for the help */
export function addLogOptions(command: Command, usual: string): Command {
  return command
    .addOption(
      new Option("--log-to <names>", `send metrics to ${loggerKinds.join(", ")} too; several behind commas`).argParser(
        parseKinds,
      ),
    )
    .option("--log-folder <folder>", `where --log-to puts its files (default: ${usual})`);
}

function parseKinds(text: string): LoggerKind[] {
  return text.split(",").map((part) => {
    const kind = loggerKinds.find((known) => known === part.trim());
    if (kind === undefined) throw new InvalidArgumentError(`Allowed choices are ${loggerKinds.join(", ")}.`);
    return kind;
  });
}

/** Null where no logger is asked for. */
export function openLoggers(
  flags: LogFlags,
  { folder, name, settings }: { folder: string; name: string; settings: object },
  context: Context,
): Loggers | null {
  if (flags.logTo === undefined) return null;
  return new Loggers({
    kinds: flags.logTo,
    folder: flags.logFolder ?? folder,
    name,
    settings: { ...settings },
    warn: (text) => context.progress.note(text),
  });
}

/** Does the work, and closes the loggers with how it ended. */
export async function withLoggers<T>(loggers: Loggers | null, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    const result = await work();
    await loggers?.close("finished");
    return result;
  } catch (error) {
    await loggers?.close(signal.aborted ? "stopped" : "failed");
    throw error;
  }
}

/** A metric's row without what is no figure of the step. */
export function figuresOf(row: Readonly<Record<string, unknown>>): Record<string, number> {
  const figures = Object.entries(row).filter(
    (entry): entry is [string, number] => typeof entry[1] === "number" && !placeNames.has(entry[0]),
  );
  return Object.fromEntries(figures);
}

const placeNames = new Set(["step", "phase"]);

/** Sends a run's training steps and evaluations to loggers, a series a strategy (of a study: a strategy of a seed). */
export class LoggingObserver extends ForwardingObserver {
  constructor(
    next: Observer,
    private readonly loggers: Loggers,
    /** "" or "seed-1/", of a run's folder. */
    private readonly place: (run: string) => string,
  ) {
    super(next);
  }

  override event(run: string, row: EventRow): void {
    if (row.event === "step") this.loggers.step(`${this.place(run)}${row.strategy ?? "start"}`, figuresOf({ ...row }));
    super.event(run, row);
  }

  override evaluated(run: string, strategy: StrategyResult): void {
    this.loggers.evaluation(`${this.place(run)}${strategy.name}`, evaluationFigures(strategy));
    super.evaluated(run, strategy);
  }
}

/** The last model's figures on the held-out prompts, and the pairs' that trained it. */
function evaluationFigures({ models, iterations }: StrategyResult): Record<string, number> {
  const [model, phase] = [models.at(-1), iterations.at(-1)?.phases.at(-1)];
  return figuresOf({
    iteration: iterations.length,
    [model?.trueScore === null ? "judged_score" : "true_score"]: model?.heldOutScore.mean,
    win_rate: model?.winRate?.mean,
    length_controlled_win_rate: model?.lengthControlledWinRate?.mean,
    answer_length: model?.answerLength,
    token_entropy: model?.tokenEntropy,
    judge_tie_rate: model?.judge.tieRate,
    judge_spearman: model?.judge.spearman,
    score_gap: phase?.scoreGap.mean,
    cosine: phase?.cosine.mean,
    pairs: phase?.pairs,
  });
}
