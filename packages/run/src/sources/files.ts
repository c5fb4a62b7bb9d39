import { canonical, hashJson, type Json, TemporaError } from "@tempora/errors";
import { asCompletion, completionRow, promptRow, readAllRows, shownText, withSystem } from "@tempora/text";
import { deriveSeed, permutation } from "@tempora/training";
import { requireOtherNames } from "../settings/judge-columns.ts";
import { settingsTemplate, storedTemplate } from "../settings/judge-template.ts";
import { paperSettings, type Settings } from "../settings/settings.ts";
import type { Example, Task, TaskSource } from "./source.ts";

interface RowPlace {
  file: string;
  row: number;
}

/** A checkpoint and files of prompts as a source of tasks. There is no true score. */
export async function fileSource(settings: Settings, note: (text: string) => void): Promise<TaskSource> {
  const { model, prompts } = settings;
  if (model === null || prompts === null) {
    throw new TemporaError("A run from files needs a model and prompts", {
      remedy: "Give --model and --prompts.",
    });
  }
  const all = await readTasks(prompts, settings, note);
  const { training, heldOut } = await splitTasks(all, settings, prompts, note);
  const examples = (file: string) => readExamples(file, settings, note);
  const data = (await Promise.all(settings.start.data.map(examples))).flat();
  const replay =
    settings.replay.weight > 0 && settings.replay.data !== null ? await examples(settings.replay.data) : [];
  const noted = new Set<number>();
  return {
    start: {
      kind: "given",
      folder: model,
      data:
        data.length === 0
          ? null
          : {
              count: data.length,
              identity: hashJson(
                data.map(
                  ({ prompt, promptParts = null, completion, variables }) =>
                    [prompt, promptParts, completion, variables] as unknown as Json,
                ),
              ),
              rows: () => data,
              some: (count) => data.filter((_, index) => index % Math.ceil(data.length / count) === 0),
            },
    },
    judgeTemplate: settingsTemplate(settings) ?? (await storedTemplate(model)),
    replay,
    training: (iteration, count) => {
      const chunk = chunkSize(training.length, settings, count);
      if ((iteration + 1) * chunk > training.length && !noted.has(iteration)) {
        noted.add(iteration);
        note(`Iteration ${iteration + 1} uses prompts again: ${prompts} has ${training.length} for training.`);
      }
      return Array.from({ length: chunk }, (_, k) => training[(iteration * chunk + k) % training.length] as Task);
    },
    heldOut: () => heldOut,
    trueScore: null,
  };
}

/** As many prompts as asked for, but no more than leave each iteration prompts of its own. */
function chunkSize(available: number, settings: Settings, count: number): number {
  return Math.max(1, Math.min(count, Math.floor(available / settings.iterations)));
}

async function readTasks(file: string, settings: Settings, note: (text: string) => void): Promise<Task[]> {
  const rows = await readAllRows(file, { as: "prompt", columns: settings.columns, note });
  const tasks: Task[] = [];
  const seen = new Map<string, Json>();
  let differing = 0;
  for (const source of rows) {
    const parsed = promptRow(source, file);
    if (!("prompt" in parsed)) throw noText(parsed, "prompt");
    if (parsed.prompt === "") throw emptyPrompt(parsed);
    const prompt = withSystem(parsed.prompt, settings.system);
    const variables = { ...settings.chatTemplateKwargs, ...parsed.variables };
    // With other tools or another system message it is another prompt.
    const id = hashJson({ prompt, variables } as unknown as Json).slice(0, 16);
    // The same prompt twice would be answered with the same samples.
    const columns = otherColumns(source.value);
    // Before hours of answers, which nobody could judge then.
    if (settings.judge.kind === "function") requireOtherNames(columns, placeOf(parsed));
    const first = seen.get(id);
    if (first !== undefined) {
      if (canonical(first) !== canonical(columns as Json)) differing++;
      continue;
    }
    seen.set(id, columns as Json);
    tasks.push({ id, prompt, text: shownText(prompt, variables), variables, columns, where: placeOf(parsed) });
  }
  if (differing > 0 && settings.judge.kind === "function") {
    note(`${file}: ${differing} rows repeat a prompt with other columns; the judge is given those of its first row.`);
  }
  return tasks;
}

/** What the row holds beside its prompt. */
function otherColumns({ prompt: _, ...columns }: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return columns;
}

/**
 * The prompts to train on, in an order that the seed decides, and those to hold out. What is held out of one file of
 * prompts depends on the prompts alone, so that runs of different seeds are measured on the same ones; a held-out file is
 * used whole.
 */
async function splitTasks(
  all: Task[],
  settings: Settings,
  file: string,
  note: (text: string) => void,
): Promise<{ training: Task[]; heldOut: Task[] }> {
  if (settings.heldOutPrompts !== null) {
    const heldOut = await readTasks(settings.heldOutPrompts, settings, note);
    const apart = new Set(heldOut.map(({ id }) => id));
    const training = all.filter(({ id }) => !apart.has(id));
    if (training.length > 0) return { training: shuffled(training, settings.seed), heldOut };
    throw new TemporaError("Every prompt is held out", {
      where: { file },
      remedy: "Give prompts for training that are not in the held-out file.",
    });
  }
  if (all.length < 2) {
    throw new TemporaError("There is only one prompt (equal ones count once)", {
      where: { file },
      remedy: "Give at least two: one to train on, one to hold out. Some hundred are a start.",
    });
  }
  const asked = settings.evaluation.prompts;
  const held = Math.min(asked, Math.max(1, Math.floor(all.length / 5)));
  if (held < asked && asked !== paperSettings.evaluation.prompts) {
    note(`${held} prompts are held out instead of ${asked}: no more than a fifth of the ${all.length} in ${file}.`);
  }
  // An id is a hash of its prompt: the smallest are a sample that has nothing to do with the file's order.
  const heldOut = [...all].sort((a, b) => (a.id < b.id ? -1 : 1)).slice(0, held);
  const apart = new Set(heldOut);
  const training = all.filter((task) => !apart.has(task));
  return { training: shuffled(training, settings.seed), heldOut };
}

function shuffled(tasks: readonly Task[], seed: number): Task[] {
  return permutation(tasks.length, deriveSeed(seed, "prompts")).map((index) => tasks[index] as Task);
}

async function readExamples(file: string, settings: Settings, note: (text: string) => void): Promise<Example[]> {
  const rows = await readAllRows(file, { as: "completion", note });
  return rows.map((source) => {
    const parsed = completionRow(source, file);
    if (!("prompt" in parsed)) throw noText(parsed, "prompt");
    const prompt = withSystem(parsed.prompt, settings.system);
    const completion = asCompletion(prompt, parsed.completion);
    const variables = { ...settings.chatTemplateKwargs, ...parsed.variables };
    const { promptParts } = parsed;
    const parts = promptParts === undefined ? {} : { promptParts };
    return { prompt, ...parts, completion, variables, where: placeOf(parsed) };
  });
}

function placeOf({ file, row }: RowPlace): RowPlace {
  return { file, row };
}

function emptyPrompt({ file, row }: RowPlace): TemporaError {
  return new TemporaError("prompt is empty", {
    where: { file, row, field: "prompt" },
    remedy: "Leave the row out, or give it the prompt that is missing.",
  });
}

function noText({ file, row }: RowPlace, field: string): TemporaError {
  return new TemporaError("The row holds token ids; the loop needs text, which the judge can read", {
    where: { file, row, field },
    remedy: "Give the row as a string or as a list of {role, content}.",
  });
}
