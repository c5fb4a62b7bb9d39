import { Command, InvalidArgumentError } from "commander";
import { chatCommand } from "./commands/chat.ts";
import { compareCommand } from "./commands/compare.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { dpoCommand } from "./commands/dpo.ts";
import { exportCommand } from "./commands/export.ts";
import { generateCommand } from "./commands/generate.ts";
import { judgeCommand } from "./commands/judge.ts";
import { logProbsCommand } from "./commands/logprobs.ts";
import { mergeCommand } from "./commands/merge.ts";
import { pairsCommand } from "./commands/pairs.ts";
import { reportCommand } from "./commands/report.ts";
import { serveCommand } from "./commands/serve.ts";
import { sftCommand } from "./commands/sft.ts";
import { cleanCommand, storeCommand } from "./commands/store.ts";
import { trainCommand } from "./commands/train.ts";
import { watchCommand } from "./commands/watch.ts";
import type { Context } from "./context.ts";

/** Every command, bound to the context it will run in. Faults are thrown, never printed here. */
export function createProgram(context: Context): Command {
  const program = new Command("tempora")
    .description("Temporal self-rewarding training of language models")
    .version("0.1.0");
  const commands = [
    trainCommand,
    sftCommand,
    dpoCommand,
    logProbsCommand,
    generateCommand,
    chatCommand,
    compareCommand,
    serveCommand,
    judgeCommand,
    mergeCommand,
    pairsCommand,
    exportCommand,
    reportCommand,
    storeCommand,
    cleanCommand,
    watchCommand,
    doctorCommand,
  ];
  for (const create of commands) program.addCommand(create(context));
  quiet(program);
  for (const command of program.commands) {
    quiet(command);
    requireValues(command);
  }
  return program;
}

/** `--data --out x` gives --data no value: the next option must not become it. */
function requireValues(command: Command): void {
  const names = new Set(command.options.flatMap(({ long }) => long ?? []));
  for (const option of command.options.filter(({ required }) => required)) {
    const parse = option.parseArg;
    const keep = (text: string, before: unknown) =>
      option.variadic ? [...(Array.isArray(before) && before !== option.defaultValue ? before : []), text] : text;
    option.argParser((text: string, before: unknown) => {
      if (!names.has(text)) return parse === undefined ? keep(text, before) : parse(text, before);
      throw new InvalidArgumentError(`It has no value: ${text} is the next option.`);
    });
  }
}

/** Usage errors are thrown and worded by failure.ts instead of printed and followed by an exit. */
function quiet(command: Command): void {
  command
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .configureHelp({ helpWidth: 110 });
}
