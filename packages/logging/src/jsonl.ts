import { rm } from "node:fs/promises";
import { join } from "node:path";
import { JsonlLog } from "@tempora/text";
import type { LoggedRow, Logger, Series } from "./logger.ts";

/** metrics.jsonl: {step, ...values} a line; an evaluation's names begin with "eval/". */
export async function jsonlLogger({ folder }: Series): Promise<Logger> {
  const file = join(folder, "metrics.jsonl");
  await rm(file, { force: true });
  const log = await JsonlLog.open<Record<string, number>>(file);
  return {
    log: (rows) => log.append(rows.map(flat)),
    close: () => log.close(),
  };
}

function flat({ step, kind, values }: LoggedRow): Record<string, number> {
  const named = Object.entries(values).map(([name, value]) => [kind === "eval" ? `eval/${name}` : name, value]);
  return { step, ...Object.fromEntries(named) };
}
