import { isObject } from "@tempora/errors";
import { dayOf, type RenderOptions } from "@tempora/text";
import { type Command, InvalidArgumentError, Option } from "commander";

/** Flags that say how rows become text, and what happens to those that do not fit. */
export interface TextFlags {
  system?: string;
  chatTemplateKwargs?: Record<string, unknown>;
  date?: Date;
}

export interface SkipFlags {
  skipTooLong: boolean;
}

export function addTextOptions(command: Command): Command {
  return addTemplateOptions(command.addOption(systemOption()));
}

/** The same without --system: a judge has an instruction of its own. */
export function addTemplateOptions(command: Command): Command {
  return command.addOption(kwargsOption()).addOption(dateOption("today", parseDay));
}

export function addSkipOption(command: Command, what: string): Command {
  return command.option("--skip-too-long", `leave out and count ${what}, instead of ending`, false);
}

export function systemOption(): Option {
  return new Option("--system <text>", "system message before every prompt that has none");
}

export function kwargsOption(): Option {
  return new Option(
    "--chat-template-kwargs <json>",
    'variables of the chat template, as {"enable_thinking": false}; a row\'s own override them',
  ).argParser(parseKwargs);
}

export function dateOption(otherwise: string, parse: (text: string) => unknown): Option {
  const what = `what a chat template that asks for the date is told, as 2026-01-31 (default: ${otherwise})`;
  return new Option("--date <day>", what).argParser(parse);
}

/** A day as 2026-01-31, checked and as it was written. */
export function parseDayText(text: string): string {
  parseDay(text);
  return text;
}

export function renderOptions(flags: TextFlags): RenderOptions {
  // One date for the whole command, also when it runs past midnight.
  return { system: flags.system, variables: flags.chatTemplateKwargs, now: flags.date ?? new Date() };
}

function parseDay(text: string): Date {
  const date = dayOf(text);
  if (date === null) throw new InvalidArgumentError("Give a day, as 2026-01-31.");
  return date;
}

function parseKwargs(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // Told below, as is JSON that is no object.
  }
  throw new InvalidArgumentError('Give a JSON object, as {"enable_thinking": false}.');
}
