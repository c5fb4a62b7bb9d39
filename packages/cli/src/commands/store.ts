import { relative, resolve } from "node:path";
import { isThere } from "@tempora/errors";
import { cleanStore, type StoredStage, storeInventory, storeOf } from "@tempora/run";
import type { Command } from "commander";
import { table } from "table";
import type { Context } from "../context.ts";
import { formatBytes, formatCounted } from "../format.ts";
import { newCommand, whenCalled } from "../options.ts";

interface StoreFlags {
  runs: string;
}

interface CleanFlags extends StoreFlags {
  unmarked: boolean;
  dryRun: boolean;
}

const runsOption = ["--runs <folder>", "folder of all runs and of their common store", "runs"] as const;

export function storeCommand(context: Context): Command {
  const command = newCommand("store", "What lies in the store of the runs, how large it is and whose", [
    "store",
    "store --runs /data/runs --json",
  ]).option(...runsOption);
  return whenCalled(command, context, show);
}

export function cleanCommand(context: Context): Command {
  const command = newCommand(
    "clean",
    "Remove from the store what no run names, and the temporary future models of finished runs",
    ["clean --dry-run", "clean"],
  )
    .option(...runsOption)
    .option("--unmarked", "also remove stages of earlier versions, which do not tell who asked for them", false)
    .option("--dry-run", "only say what would be removed", false);
  return whenCalled(command, context, clean);
}

async function show({ runs }: StoreFlags, context: Context): Promise<void> {
  requireSeen(runs);
  const stages = await storeInventory(storeOf(runs));
  const kinds = [...new Set(stages.map(({ kind }) => kind))];
  const rows = kinds.map((kind) =>
    summary(
      kind,
      stages.filter((stage) => stage.kind === kind),
    ),
  );
  const names = [...new Set(stages.flatMap(({ users }) => users.map(({ run }) => run)))];
  const perRun = names.map((run) => {
    const own = stages.filter(({ users }) => users.some((user) => user.run === run));
    const alone = own.filter(({ users }) => users.length === 1);
    // Of a study's runs, with the study's name.
    return [relative(resolve(runs), run), `${own.length}`, formatBytes(bytesOf(own)), formatBytes(bytesOf(alone))];
  });
  const header = ["", "stages", "size", "unfinished", "named by no run", "models no longer needed"];
  const text = [
    grid([header, ...rows, summary("all", stages)], { total: true }),
    ...(perRun.length === 0 ? [] : [grid([["run", "stages", "size", "its own alone"], ...perRun], { total: false })]),
  ];
  context.result({ runs, stages }, text.join("\n"));
}

/** @throws TemporaError where a store may be there that cannot be seen. */
function requireSeen(runs: string): void {
  isThere(storeOf(runs), "Cannot read the store");
}

function summary(name: string, stages: readonly StoredStage[]): string[] {
  const unused = stages.filter(({ users, marked }) => marked && users.length === 0);
  const spent = stages.reduce((sum, { spentModel }) => sum + spentModel, 0);
  return [
    name,
    `${stages.length}`,
    formatBytes(bytesOf(stages)),
    `${stages.filter(({ finished }) => !finished).length}`,
    formatBytes(bytesOf(unused)),
    formatBytes(spent),
  ];
}

const bytesOf = (stages: readonly StoredStage[]) => stages.reduce((sum, { bytes }) => sum + bytes, 0);

/** With a header, and a line before the last row where that is the sum of the others. */
function grid(rows: string[][], { total }: { total: boolean }): string {
  const columns = (rows[0] as string[]).map((_, k) => ({
    alignment: k === 0 ? ("left" as const) : ("right" as const),
  }));
  return table(rows, { columns, drawHorizontalLine: (line, count) => line === 1 || (total && line === count - 1) });
}

async function clean({ runs, unmarked, dryRun: pretend }: CleanFlags, context: Context): Promise<void> {
  requireSeen(runs);
  const cleaned = await cleanStore(storeOf(runs), { pretend, unmarked });
  const { stages, models, busy, bytes } = cleaned;
  const unnamed = `${formatCounted(stages.length, "stage")} that no run names`;
  const spent =
    models.length === 1
      ? "the model of 1 finished training that was only a step on the way"
      : `the models of ${models.length} finished trainings that were only steps on the way`;
  const what = `${unnamed}, and ${spent}: ${formatBytes(bytes)}`;
  const text = [
    pretend ? `Would remove ${what}` : `Removed ${what}`,
    ...(cleaned.unmarked.length === 0
      ? []
      : [
          `${cleaned.unmarked.length} stages of an earlier version do not tell who asked for them, and are left alone: ${formatBytes(bytesOf(cleaned.unmarked))} (--unmarked removes them too).`,
        ]),
    ...(busy.length === 0 ? [] : [`${busy.length} are left alone: a process works on them.`]),
  ];
  context.result({ runs, dryRun: pretend, ...cleaned }, text.join("\n"));
}
