import { createInterface } from "node:readline";
import type { Engine } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { paperSettings } from "@tempora/run";
import type { Message } from "@tempora/text";
import type { Command } from "commander";
import { type AdapterFlags, addAdapterOption } from "../adapter.ts";
import { Chat } from "../chat.ts";
import { type Context, throwIfStopped } from "../context.ts";
import { loadEngine, modelHelp, openModel } from "../model.ts";
import {
  addEngineOptions,
  addSamplingOptions,
  type EngineFlags,
  newCommand,
  type SamplingFlags,
  whenCalled,
  wholeNumber,
} from "../options.ts";
import { addTextOptions, renderOptions, type TextFlags } from "../text-flags.ts";

interface ChatFlags extends AdapterFlags, EngineFlags, SamplingFlags, TextFlags {
  maxCacheTokens: number;
}

const help = "/reset forgets the conversation, /system TEXT sets the system message and resets, /exit leaves";

export function chatCommand(context: Context): Command {
  const { sampling } = paperSettings;
  const command = newCommand("chat", "Talk to a model in the terminal; without one, a turn a line of standard input", [
    "chat runs/world-temporal/models/M1",
    'chat org/name --system "Be brief." --temperature 0',
  ])
    .argument("<model>", modelHelp)
    .addHelpText("after", `\n${help}. Ctrl-C stops an answer, and leaves where none is given.`);
  addSamplingOptions(addTextOptions(command), { ...sampling, seed: 0 }).option(
    "--max-cache-tokens <count>",
    "tokens of the KV cache at most: bounds the memory",
    wholeNumber(1),
    32_768,
  );
  return whenCalled(addAdapterOption(addEngineOptions(command)), context, chat);
}

async function chat(flags: ChatFlags, context: Context, args: readonly string[]): Promise<void> {
  const model = await openModel(args[0] as string, context);
  const tokenizer = await model.tokenizer();
  if (!tokenizer.hasChatTemplate) {
    throw new TemporaError("The model has no chat template, which conversations need", {
      where: { file: model.name },
      remedy: "Take an instruction-tuned model, or use `tempora generate --prompt`.",
    });
  }
  const endTokens = await model.endTokens();
  using engine = await loadEngine(model, flags, context);
  const maxCacheTokens = Math.min(flags.maxCacheTokens, cacheOf(engine));
  using talk = new Chat(engine, tokenizer, {
    sampling: flags,
    endTokens,
    maxCacheTokens,
    render: renderOptions(flags),
  });
  const write = (text: string) => {
    if (!context.json) process.stdout.write(text);
  };
  const terminal = process.stdin.isTTY && process.stdout.isTTY && !context.json;
  if (terminal) write(`${help}\n`);
  for await (const line of terminal ? asked(context.signal) : given(context.signal)) {
    if (line.trim() === "/exit") break;
    await answerLine(line, { talk, context, write, terminal });
  }
  throwIfStopped(context.signal);
  if (context.json) context.result({ messages: talk.messages satisfies readonly Message[] }, "");
}

/** All that a conversation in the model's context needs. */
function cacheOf(engine: Engine): number {
  return engine.config.maxPositions + 64;
}

interface Talking {
  talk: Chat;
  context: Context;
  write(text: string): void;
  terminal: boolean;
}

async function answerLine(line: string, { talk, context, write, terminal }: Talking): Promise<void> {
  const text = line.trim();
  if (text === "") return;
  if (text === "/reset") return talk.reset();
  const system = /^\/system(?:\s+([\s\S]*))?$/.exec(text);
  if (system !== null) return talk.reset(system[1] ?? "");
  const stop = new AbortController();
  context.takeInterrupts(() => stop.abort());
  try {
    if (/^\/[a-z]+$/.test(text)) throw new TemporaError(`There is no command ${text}`, { remedy: `${help}.` });
    for await (const piece of talk.answer(text, AbortSignal.any([stop.signal, context.signal]))) write(piece);
    write(stop.signal.aborted ? " [stopped]\n" : "\n");
  } catch (error) {
    // On a terminal one goes on talking: with a shorter question, or after /reset.
    if (!terminal || !(error instanceof TemporaError)) throw error;
    context.progress.note(`${error.what}. ${error.remedy}`);
  } finally {
    context.takeInterrupts(null);
  }
}

/** Lines from a terminal, with editing and history. Ends with Ctrl-D, and with Ctrl-C at an empty prompt. */
async function* asked(signal: AbortSignal): AsyncGenerator<string> {
  let history: string[] = [];
  while (!signal.aborted) {
    // One reader a line: between lines the terminal turns Ctrl-C into a signal, which stops an answer.
    const reader = createInterface({ input: process.stdin, output: process.stdout, history });
    const line = await new Promise<string | null>((resolve) => {
      reader.once("close", () => resolve(null));
      reader.once("SIGINT", () => reader.close());
      reader.on("history", (lines) => {
        history = [...lines];
      });
      reader.question("> ", resolve);
    });
    reader.close();
    if (line === null) return;
    yield line;
  }
}

/** Lines from a pipe or a file. */
async function* given(signal: AbortSignal): AsyncGenerator<string> {
  for await (const line of createInterface({ input: process.stdin, signal })) yield line;
}
