import type { Json } from "@tempora/errors";
import { dayText } from "@tempora/text";
import { makeJudge, secondJudge } from "../judges/make-judge.ts";
import type { ModelRef } from "../models/model-ref.ts";
import { templateJson } from "../settings/judge-template.ts";
import type { Example, Task } from "../sources/source.ts";
import type { RunContext } from "../stages/context.ts";
import { choiceOf } from "../stages/judge.ts";
import { ContentHash } from "../store/content-hash.ts";

/** What decides a piece of a run beside its models: more than its stages are keyed by, since none of their rows is looked at. */
export function outcomeInputs(
  context: RunContext,
  plan: { judge: ModelRef; strategyFolder: string },
  tasks: readonly Task[],
): Record<string, Json> {
  const { settings, source, now } = context;
  const choice = choiceOf(context, plan.judge);
  return {
    settings: settings as unknown as Json,
    // A function's identity tells its sources, which the settings do not.
    judge: {
      ...nameAndHash(plan.judge),
      first: makeJudge(choice).identity,
      second: secondJudge(choice)?.identity ?? null,
    },
    judgeTemplate: templateJson(source.judgeTemplate),
    graded: source.trueScore !== null,
    tasks: hashAll(tasks),
    date: dayText(now),
    strategyFolder: plan.strategyFolder,
  };
}

export function nameAndHash({ name, hash }: ModelRef): { name: string; hash: string } {
  return { name, hash };
}

export function hashExamples(examples: readonly Example[]): string {
  return hashAll(examples);
}

/** Of all that rows hold but where they come from. */
function hashAll(rows: readonly (Task | Example)[]): string {
  const hash = new ContentHash();
  for (const { where: _, ...row } of rows) hash.json(row as unknown as Json);
  return hash.digest();
}
