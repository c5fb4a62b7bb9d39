import { TemporaError } from "@tempora/errors";
import {
  type DropReason,
  dropReasons,
  noSelection,
  type PhaseRule,
  type Pools,
  type Role,
  rolesOf,
  type SelectedPair,
  type SelectionSettings,
  type Strategy,
  type StrategyName,
  selectPairs,
  strategies,
  strategyNames,
  truncationWarning,
} from "@tempora/preferences";
import { type PairColumns, pairColumns, paperSettings } from "@tempora/run";
import { writeJsonl } from "@tempora/text";
import { type Command, Option } from "commander";
import type { Context } from "../context.ts";
import { formatCounted } from "../format.ts";
import { type Candidate, type JudgedRow, readJudgedRows } from "../judged.ts";
import { addColumnsOption, type ColumnFlags, newCommand, realNumber, whenCalled, wholeNumber } from "../options.ts";
import { claimFile } from "../output.ts";

interface PairsFlags extends ColumnFlags {
  data: string;
  past?: string;
  future?: string;
  out: string;
  strategy: StrategyName;
  phase?: number;
  minimumGap: number;
  lengthControl?: number;
  truncated: "drop" | "keep";
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
    .option("--phase <number>", "of a strategy with two (default: 2 with --future, else 1)", wholeNumber(1, 2))
    .option("--minimum-gap <score>", "keep a pair only when its scores differ by more", realNumber(0), 0)
    .addOption(
      new Option("--truncated <how>", "what to do with answers that were cut off by length")
        .choices(["drop", "keep"])
        .default(paperSettings.selection.truncated),
    )
    .option("--length-control <rho>", "Meta-Rewarding's length control, 0 to 1 (default: off)", realNumber(0, 1));
  return whenCalled(addColumnsOption(command), context, pairs);
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
  for (const role of rolesOf(rule)) rows.set(role, await readJudgedRows(files[role] as string, flags.columns));
  const counts = noSelection();
  const formed: PairColumns[] = [];
  const pools = promptPools(rows, files);
  for await (const pair of selectPairs(rule, pools, selection(flags), counts)) formed.push(columns(pair, number));
  const left = countText(counts.dropped);
  if (formed.length === 0) {
    const where = { file: flags.data };
    throw new TemporaError(`No pair was formed: ${left}`, { where, remedy: remedyOf(counts.dropped) });
  }
  await writeJsonl(out, formed);
  const warning = truncationWarning(counts, selection(flags));
  if (warning !== null) context.progress.note(`warning: ${warning} (--truncated keep).`);
  const textDiffers = formed.filter(({ text_differs }) => text_differs).length;
  context.result(
    { out, ...counts, text_differs: textDiffers, phase: number },
    [
      `${formatCounted(formed.length, "pair")}${left === "" ? "" : ` (left out: ${left})`}: ${flags.out}`,
      ...(textDiffers === 0
        ? []
        : [`In ${textDiffers} of them the text does not give the ids again: train on the ids.`]),
    ].join("\n"),
  );
}

function selection(flags: PairsFlags): SelectionSettings {
  const lengthControl = flags.lengthControl === undefined ? null : { rho: flags.lengthControl };
  return { minimumGap: flags.minimumGap, lengthControl, truncated: flags.truncated };
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

function* promptPools(
  rows: ReadonlyMap<Role, JudgedRow[]>,
  files: Readonly<Partial<Record<Role, string | undefined>>>,
): Generator<{ prompt: JudgedRow; pools: Pools<Candidate> }> {
  for (const [index, prompt] of (rows.get("current") as JudgedRow[]).entries()) {
    const pools: Pools<Candidate> = {};
    for (const [role, list] of rows) pools[role] = samePrompt(prompt, list[index], files[role] ?? "").pool(role);
    yield { prompt, pools };
  }
}

/** Files are matched row by row. */
function samePrompt(row: JudgedRow, other: JudgedRow | undefined, file: string): JudgedRow {
  const same = (value: (one: JudgedRow) => unknown) =>
    JSON.stringify(other && value(other)) === JSON.stringify(value(row));
  // With other tools or another setting of the template it is another prompt.
  if (other === undefined || !same(({ prompt, variables }) => [prompt, variables])) {
    throw new TemporaError("The files do not hold the same prompts in the same order", {
      where: { file, row: row.row },
      remedy: "Generate and judge all of them from one file of prompts.",
    });
  }
  if (same(({ promptIds }) => promptIds)) return other;
  throw new TemporaError("The files hold different token ids for this prompt", {
    where: { file, row: row.row, field: "prompt_ids" },
    remedy: "Generate all of them by models of one tokenizer and chat template.",
  });
}

function columns({ prompt, chosen, rejected }: SelectedPair<Candidate> & { prompt: JudgedRow }, phase: number) {
  return {
    ...pairColumns(
      { conversation: prompt.prompt, variables: prompt.variables, ids: prompt.promptIds },
      chosen,
      rejected,
      phase,
    ),
    chosen_role: chosen.role,
    rejected_role: rejected.role,
  };
}

/** What helps against the commonest reason. */
function remedyOf(dropped: Readonly<Record<DropReason, number>>): string {
  const remedies: Record<DropReason, string> = {
    tie: "Sample more completions or judgements, or at a higher temperature: equal scores make no pairs.",
    "identical-text": "Sample more completions, or at a higher temperature: equal texts make no pairs.",
    "no-scores": "Judge them again, by --judge expected or with more --retries: answers without a score make no pairs.",
    truncated:
      "Generate again with more --max-new-tokens, or give --truncated keep: answers that were cut off by length are left out.",
  };
  const [reason] = dropReasons.toSorted((one, other) => dropped[other] - dropped[one]);
  return remedies[reason as DropReason];
}

function countText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([reason, count]) => `${count} ${reason}`)
    .join(", ");
}
