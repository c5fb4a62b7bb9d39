import { describePlace, fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { CommanderError } from "commander";
import { hintFor } from "./hugging-face-words.ts";

/** A fault as the user reads it. */
export interface Failure {
  what: string;
  where: string;
  remedy: string;
}

/** Turns anything that was thrown into what, where and remedy. */
export function describeFailure(error: unknown, command: string): Failure {
  if (error instanceof TemporaError) {
    return { what: error.what, where: describePlace(error.where), remedy: error.remedy };
  }
  if (error instanceof CommanderError) return describeUsage(error, command);
  if (systemErrorCode(error) !== undefined) {
    return describeFailure(fileError(error, "A file could not be used", systemPath(error)), command);
  }
  return {
    what: error instanceof Error ? error.message : String(error),
    where: "",
    remedy: "This fault was not foreseen: run the command again with --debug and report the stack it prints.",
  };
}

/** Commander's "error: unknown option '--n'\n(Did you mean --nn?)" in our three lines. */
function describeUsage(error: CommanderError, command: string): Failure {
  const [first = "", ...rest] = error.message.replace(/^error: /, "").split("\n");
  const unknown = /^unknown option '([^']+)'/.exec(first)?.[1];
  const known = unknown === undefined ? null : hintFor(unknown, command);
  const hint = known ?? rest.join(" ").replace(/^\(|\)$/g, "");
  const help = `See \`tempora ${command ? `${command} ` : ""}--help\`.`;
  return { what: first.charAt(0).toUpperCase() + first.slice(1), where: "", remedy: hint ? `${hint} ${help}` : help };
}

export function formatFailure(failure: Failure): string {
  const where = failure.where === "" ? "" : `where: ${failure.where}\n`;
  return `error: ${failure.what}\n${where}remedy: ${failure.remedy}\n`;
}

function systemPath(error: unknown): string {
  return error instanceof Error && "path" in error && typeof error.path === "string" ? error.path : "";
}
