import { setImmediate } from "node:timers/promises";
import { ContextFit } from "@tempora/text";
import type { ModelRef } from "../models/model-ref.ts";
import { promptIds } from "../sources/conversation.ts";
import type { Task, TaskSource } from "../sources/source.ts";
import type { RunContext } from "../stages/context.ts";

/**
 * The run's tasks without those whose answer has no room in the model's context. All are looked at before anything is
 * sampled: the first one that does not fit ends the run now, not in ten hours, unless such are to be left out and counted.
 */
export async function fittingSource(context: RunContext, model: ModelRef): Promise<TaskSource> {
  const { settings, source, signal, now } = context;
  const { tokenizer, checkpoint } = await context.host.open(model);
  const fit = new ContextFit(settings.skipTooLong);
  const tooLong = new Set<string>();
  const seen = new Set<string>();
  const look = async (tasks: readonly Task[], reserve: number) => {
    for (const task of tasks) {
      if (seen.has(task.id)) continue;
      if (seen.size % 1000 === 0) {
        await setImmediate();
        signal?.throwIfAborted();
      }
      seen.add(task.id);
      const options = { maxLength: checkpoint.config.maxPositions, reserve, now };
      if (fit.keep(() => promptIds(task, tokenizer, options)) === null) tooLong.add(task.id);
    }
    fit.requireSome(tasks.filter(({ id }) => !tooLong.has(id)).length);
  };
  // A baseline may run longer than the first strategy, until it has spent as much.
  const most = settings.baselines.length === 0 ? 0 : settings.maxBaselineIterations;
  for (let iteration = 0; iteration < Math.max(settings.iterations, most); iteration++) {
    const tasks = source.training(iteration, settings.promptsPerIteration);
    // Behind the last prompt the first ones come again.
    if (iteration >= settings.iterations && tasks.every(({ id }) => seen.has(id))) break;
    await look(tasks, settings.sampling.maxNewTokens);
  }
  await look(source.heldOut(), settings.evaluation.sampling.maxNewTokens);
  const summary = fit.summary("prompts");
  if (summary === null) return source;
  context.observer.note(`${summary}.`);
  const fits = ({ id }: Task) => !tooLong.has(id);
  return {
    ...source,
    training: (iteration, count) => source.training(iteration, count).filter(fits),
    heldOut: () => source.heldOut().filter(fits),
  };
}
