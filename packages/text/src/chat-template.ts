import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { type FileReader, TemporaError } from "@tempora/errors";
import { timeFormat } from "d3-time-format";
import { repair, repairVariables } from "./jinja-repairs.ts";
import type { Message } from "./types.ts";

/** A compiled chat template. */
export interface ChatTemplate {
  file: string;
  /** Whether another date may give another text. */
  asksForDate: boolean;
  /** @param now What a template that asks for the date is told. */
  render(
    messages: readonly Message[],
    addGenerationPrompt: boolean,
    variables: Record<string, unknown>,
    now: Date,
  ): string;
}

/**
 * The default chat template of a tokenizer folder, or null when it has none: chat_template.jinja, else chat_template.json,
 * else `chat_template` of tokenizer_config.json (one template, or a list of named ones). The order is that of transformers.
 */
export async function loadChatTemplate(
  folder: string,
  config: Record<string, unknown>,
  read: FileReader,
): Promise<ChatTemplate | null> {
  const decode = (content: Uint8Array) => new TextDecoder().decode(content);
  const jinja = await read("chat_template.jinja");
  if (jinja !== null) return compile(decode(jinja), join(folder, "chat_template.jinja"));
  const json = await read("chat_template.json");
  if (json !== null) {
    const file = join(folder, "chat_template.json");
    return compile(pickTemplate(parseTemplateFile(decode(json), file), file), file);
  }
  const value = config.chat_template ?? null;
  const file = join(folder, "tokenizer_config.json");
  return value === null ? null : compile(pickTemplate(value, file), file);
}

function parseTemplateFile(text: string, file: string): unknown {
  try {
    return (JSON.parse(text) as { chat_template?: unknown } | null)?.chat_template;
  } catch (error) {
    throw broken(file, `The file is not valid JSON: ${reasonOf(error)}`, error);
  }
}

function pickTemplate(value: unknown, file: string): string {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) throw broken(file, "chat_template must be a string or a list of named templates");
  const named = value as { name?: unknown; template?: unknown }[];
  const chosen = named.find((one) => one?.name === "default")?.template;
  if (typeof chosen === "string") return chosen;
  const names = named.map((one) => String(one?.name)).join(", ");
  throw broken(file, `None of the chat templates is named "default"; there are: ${names}`);
}

function compile(source: string, file: string): ChatTemplate {
  let template: Template;
  try {
    template = new Template(source);
    repair(template);
  } catch (error) {
    throw broken(file, `Cannot parse the chat template: ${reasonOf(error)}`, error);
  }
  return {
    file,
    asksForDate: source.includes("strftime_now"),
    render(messages, addGenerationPrompt, variables, now) {
      try {
        return template.render({
          tools: null,
          documents: null,
          ...variables,
          ...repairVariables((format) => timeFormat(format)(now)),
          messages,
          add_generation_prompt: addGenerationPrompt,
        });
      } catch (error) {
        const silent = messages.some(({ content }) => content === null);
        throw new TemporaError(`The chat template refuses the conversation: ${reasonOf(error)}`, {
          where: { file },
          remedy: `${silent ? 'Give content "" in place of null (not all templates take that)' : "Check the roles and their order"}, or change the template.`,
          cause: error,
        });
      }
    },
  };
}

function broken(file: string, what: string, cause?: unknown): TemporaError {
  return new TemporaError(what, {
    where: { file, field: "chat_template" },
    remedy: "Correct the template, or take the one that belongs to the model.",
    cause,
  });
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
