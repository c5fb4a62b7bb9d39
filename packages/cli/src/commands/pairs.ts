import { TemporaError } from "@tempora/errors";
import {
  type Judged,
  type PhaseRule,
  type Pools,
  type Role,
  rolesOf,
  type SelectionSettings,
  type Strategy,
  type StrategyName,
  selectPair,
  strategies,
} from "@tempora/preferences";
import { strategyNames } from "@tempora/run";
import { asCompletion, type Conversation, writeJsonl } from "@tempora/text";
import { type Command, Option } from "commander";
import type { Context } from "../context.ts";
import { type JudgedRow, readJudgedRows } from "../judged.ts";
import { newCommand, real, whenCalled, whole } from "../options.ts";
import { claimFile } from "../output.ts";

interface PairsFlags {
  data: string;
  past?: string;
  future?: string;
  out: string;
  strategy: StrategyName;
  phase?: number;
  minimumGap: number;
  lengthControl?: number;
}

export function pairsCommand(context: Context): Command {
  const command = newCommand("pairs", "Form preference pairs from judged completions", [
    "pairs --data judged.jsonl --out pairs.jsonl --strategy self-rewarding",
    "pairs --data m1.jsonl --past m0.jsonl --future f2.jsonl --out pairs.jsonl --strategy temporal",
  ])
    .requiredOption("--data <file>", "judged completions of the current model, as `tempora judge` writes them")
    .option("--past <file>", "those of the past model (default: --data, as in the first iteration)")
    .option("--future <file>", "those of the future model")
    .requiredOption("--out <file>", "rows with prompt, chosen, rejected, their scores and roles")
    .addOption(
      new Option("--strategy <name>", "who supplies chosen and rejected").choices(strategyNames).default("temporal"),
    )
    .option("--phase <number>", "of a strategy with two (default: 2 with --future, else 1)", whole(1, 2))
    .option("--minimum-gap <score>", "keep a pair only when its scores differ by more", real(0), 0)
    .option("--length-control <rho>", "Meta-Rewarding's length control, 0 to 1 (default: off)", real(0, 1));
  return whenCalled(command, context, pairs);
}

async function pairs(flags: PairsFlags, context: Context): Promise<void> {
  context.onStopped("Nothing was written: run the same command again.");
  const { rule, number } = chosenPhase(strategies[flags.strategy], flags);
  const inputs = [flags.data, flags.past, flags.future].filter((file) => file !== undefined);
  const out = await claimFile("--out", flags.out, inputs);
  const files = { current: flags.data, past: flags.past ?? flags.data, future: flags.future };
  if (flags.past === undefined && rolesOf(rule).includes("past")) {
    context.progress.note("No --past: the current model's completions stand for the past model's, as in iteration 1.");
  }
  const rows = new Map<Role, JudgedRow[]>();
  for (const role of rolesOf(rule)) rows.set(role, await readJudgedRows(files[role] as string));
  const { formed, dropped } = formPairs(rule, number, rows, files, selection(flags));
  if (formed.length === 0) {
    throw new TemporaError(`No pair was formed: ${countText(dropped)}`, {
      where: { file: flags.data },
      remedy: "Sample more completions or judgements, or at a higher temperature: equal scores make no pairs.",
    });
  }
  await writeJsonl(out, formed);
  context.result(
    { out, pairs: formed.length, dropped, phase: number },
    `${formed.length} pairs${Object.keys(dropped).length > 0 ? ` (left out: ${countText(dropped)})` : ""}: ${flags.out}`,
  );
}

function selection(flags: PairsFlags): SelectionSettings {
  const lengthControl = flags.lengthControl === undefined ? null : { rho: flags.lengthControl };
  return { minimumGap: flags.minimumGap, lengthControl };
}

function chosenPhase(strategy: Strategy, flags: PairsFlags): { rule: PhaseRule; number: number } {
  const number = flags.phase ?? (flags.future === undefined ? 1 : strategy.phases.length);
  const rule = strategy.phases[number - 1];
  if (rule === undefined) {
    throw new TemporaError(`The strategy ${strategy.name} has no phase ${number}`, {
      where: { field: "--phase" },
      remedy: `It has ${strategy.phases.length}.`,
    });
  }
  if (rolesOf(rule).includes("future") && flags.future === undefined) {
    throw new TemporaError(`Phase ${number} of ${strategy.name} needs completions of the future model`, {
      where: { field: "--future" },
      remedy: "Train it on the pairs of phase 1, let it generate, judge that, and name the file.",
    });
  }
  return { rule, number };
}

function formPairs(
  rule: PhaseRule,
  phase: number,
  rows: ReadonlyMap<Role, JudgedRow[]>,
  files: Readonly<Partial<Record<Role, string | undefined>>>,
  settings: SelectionSettings,
): { formed: object[]; dropped: Record<string, number> } {
  const first = rows.get("current") as JudgedRow[];
  const formed: object[] = [];
  const dropped: Record<string, number> = {};
  first.forEach((row, index) => {
    const pools: Pools = {};
    for (const [role, list] of rows) pools[role] = samePrompt(row, list[index], files[role] ?? "").pool(role);
    const outcome = selectPair(rule, pools, settings);
    if ("dropped" in outcome) dropped[outcome.dropped] = (dropped[outcome.dropped] ?? 0) + 1;
    else formed.push(pairColumns(row.prompt, phase, outcome));
  });
  return { formed, dropped };
}

/** Files are matched row by row. */
function samePrompt(row: JudgedRow, other: JudgedRow | undefined, file: string): JudgedRow {
  if (other !== undefined && JSON.stringify(other.prompt) === JSON.stringify(row.prompt)) return other;
  throw new TemporaError("The files do not hold the same prompts in the same order", {
    where: { file, row: row.row },
    remedy: "Generate and judge all of them from one file of prompts.",
  });
}

function pairColumns(prompt: Conversation, phase: number, pair: { chosen: Judged; rejected: Judged }): object {
  return {
    prompt,
    chosen: asCompletion(prompt, pair.chosen.text),
    rejected: asCompletion(prompt, pair.rejected.text),
    phase,
    chosen_score: pair.chosen.score,
    rejected_score: pair.rejected.score,
    chosen_role: pair.chosen.role,
    rejected_role: pair.rejected.role,
  };
}

function countText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([reason, count]) => `${count} ${reason}`)
    .join(", ");
}
