import { join } from "node:path";
import { alarmLines, readRun, summaryTable, writeReport } from "@tempora/report";
import type { Command } from "commander";
import type { Context } from "../context.ts";
import { newCommand, whenCalled } from "../options.ts";

export function reportCommand(context: Context): Command {
  const command = newCommand("report", "Write report.html of a run again, and print its table", [
    "report runs/world-temporal",
  ]).argument("<run>", "folder of a run");
  return whenCalled(command, context, report);
}

async function report(_: object, context: Context, args: readonly string[]): Promise<void> {
  const folder = args[0] as string;
  const { result, events } = await readRun(folder);
  const file = await writeReport(folder);
  context.result(
    { report: file, run: result },
    [
      summaryTable(result),
      ...alarmLines(result, events),
      "",
      `report  ${file}`,
      `run     ${join(folder, "run.json")}`,
    ].join("\n"),
  );
}
