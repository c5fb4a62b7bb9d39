import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileError, type Json, TemporaError } from "@tempora/errors";
import { checkJudgeTemplate, type JudgeTemplate, judgeTemplates } from "@tempora/preferences";
import { schemaFault } from "@tempora/text";
import { z } from "zod";

const text = z.string().min(1);

/** A judge's template as files and settings hold it. */
export const judgeTemplateSchema = z.strictObject({
  name: text,
  text,
  maxScore: z.number().positive(),
  answerPrefix: z.string().optional(),
  answers: z.array(z.strictObject({ text: z.union([text, z.array(text).min(1)]), value: z.number() })).optional(),
});

/** A checkpoint may carry the judge's instruction that it was trained for. */
export const judgeTemplateFile = "tempora_judge.json";

/** A template as part of a stage's key. */
export function templateJson(template: JudgeTemplate | null): Json {
  if (template === null) return null;
  const { name, text, maxScore, answerPrefix, answers } = template;
  return { name, text, maxScore, answerPrefix, answers: answers?.map((answer) => ({ ...answer })) };
}

/** The template of this name that comes with the program, or null. */
export function namedTemplate(name: string): JudgeTemplate | null {
  return judgeTemplates.find((template) => template.name === name) ?? null;
}

/** The template that the settings name, or null. */
export function settingsTemplate({
  judge,
}: {
  judge: { template: JudgeTemplate | string | null };
}): JudgeTemplate | null {
  return typeof judge.template === "string" ? namedTemplate(judge.template) : judge.template;
}

/** The judge's instruction that a checkpoint carries, or null. */
export async function storedTemplate(folder: string): Promise<JudgeTemplate | null> {
  const file = join(folder, judgeTemplateFile);
  return existsSync(file) ? readTemplate(file) : null;
}

/** A template by the name of one that comes with the program, or by its file. */
export async function templateOf(nameOrFile: string): Promise<JudgeTemplate> {
  const named = namedTemplate(nameOrFile);
  if (named !== null) return named;
  if (existsSync(nameOrFile)) return readTemplate(nameOrFile);
  const names = judgeTemplates.map(({ name }) => name).join(", ");
  throw new TemporaError(`There is no judge's template "${nameOrFile}"`, {
    where: { field: "judge.template" },
    remedy: `Name a JSON file, or one of ${names}.`,
  });
}

async function readTemplate(file: string): Promise<JudgeTemplate> {
  let problem: unknown;
  try {
    const parsed = judgeTemplateSchema.safeParse(JSON.parse(await readFile(file, "utf8")));
    if (parsed.success) {
      checkJudgeTemplate(parsed.data);
      return parsed.data;
    }
    problem = parsed.error;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw fileError(error, "Cannot read the judge's template", file);
    problem = error;
  }
  const issue = problem instanceof z.ZodError ? problem.issues[0] : undefined;
  const what = issue === undefined ? "" : `: ${[...issue.path, schemaFault(issue.message)].join(" ")}`;
  throw new TemporaError(`The judge's template is not { name, text, maxScore, answers? }${what}`, {
    where: { file },
    remedy: "Write its name, its text with {prompt} and {response}, and its highest score as JSON.",
    cause: problem,
  });
}
