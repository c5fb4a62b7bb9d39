import type { BatchOptions } from "@tempora/engine";
import { ApiError } from "./api-error.ts";
import type { ServerLimits } from "./limits.ts";
import type { Metrics } from "./metrics.ts";
import { Scheduler } from "./scheduler.ts";
import { Scorer } from "./scorer.ts";
import type { ServedModel } from "./served-model.ts";

const defaultCacheTokens = 32_768;
/** What pages that are not full may take of the cache beside a sequence's tokens. */
const cacheMargin = 32;

interface ServiceOptions {
  limits: ServerLimits;
  batch: BatchOptions;
  metrics: Metrics;
}

/** What runs on an engine, for all the models that are served from it. */
class EngineService {
  readonly scheduler: Scheduler;
  readonly scorer: Scorer;
  /** Tokens of prompt and completion at most. */
  readonly longest: number;

  constructor(engine: ServedModel["engine"], { limits, batch, metrics }: ServiceOptions) {
    const { maxPositions } = engine.config;
    const wanted = batch.maxCacheTokens ?? defaultCacheTokens;
    const rows = batch.maxRows ?? limits.concurrency;
    // No more than all rows together can fill, with the pages that end within.
    const maxCacheTokens = Math.min(wanted, (rows + 1) * (maxPositions + cacheMargin));
    this.longest = Math.min(maxPositions, maxCacheTokens - cacheMargin);
    this.scheduler = new Scheduler(
      () => engine.batch({ maxRows: rows, maxCacheTokens }),
      (count) => metrics.generatedTokens.inc(count),
    );
    this.scorer = new Scorer(engine, limits.scoringTokens);
  }
}

/** The models by name, those of one engine on one batch. */
export function modelServices(models: readonly ServedModel[], options: ServiceOptions): Map<string, ModelService> {
  const engines = new Map<ServedModel["engine"], EngineService>();
  const services = new Map<string, ModelService>();
  for (const model of models) {
    const running = engines.get(model.engine) ?? new EngineService(model.engine, options);
    engines.set(model.engine, running);
    services.set(model.name, new ModelService(model, running));
  }
  return services;
}

/** A served model with what its engine runs. */
export class ModelService {
  readonly model: ServedModel;
  readonly scheduler: Scheduler;
  readonly scorer: Scorer;
  readonly #longest: number;
  /** Seconds since 1970. */
  readonly created = Math.floor(Date.now() / 1000);

  constructor(model: ServedModel, { scheduler, scorer, longest }: EngineService) {
    this.model = model;
    this.scheduler = scheduler;
    this.scorer = scorer;
    this.#longest = longest;
  }

  /** Tokens that may follow a prompt of this length; at least 1. */
  room(promptTokens: number): number {
    return Math.max(1, this.#longest - promptTokens);
  }

  /** As /v1/models lists it. */
  get entry() {
    const { name, base, engine } = this.model;
    return {
      id: name,
      object: "model",
      created: this.created,
      owned_by: "tempora",
      root: base ?? name,
      parent: base ?? null,
      max_model_len: engine.config.maxPositions,
    };
  }

  /** Changes when answers may: another model, element type or device. */
  get fingerprint(): string {
    const { name, engine } = this.model;
    return `tempora ${name} ${engine.dtype} ${engine.deviceName}`;
  }

  /**
   * Refuses a prompt that the model cannot continue by `newTokens` or fewer.
   * @throws ApiError 400
   */
  checkPrompt(ids: readonly number[], newTokens: number, param: string): void {
    const { maxPositions, vocabSize } = this.model.engine.config;
    const most = newTokens === 0 ? maxPositions : maxPositions - 1;
    if (ids.length === 0) throw new ApiError(400, `${param}: has no tokens.`, { param, code: "invalid_value" });
    if (ids.length > most) {
      const message = `This model takes ${maxPositions} tokens with the answer; the prompt has ${ids.length}.`;
      throw new ApiError(400, message, { param, code: "context_length_exceeded" });
    }
    const foreign = ids.find((id) => id >= vocabSize);
    if (foreign === undefined) return;
    const message = `${param}: the token id ${foreign} lies outside the vocabulary of ${vocabSize} tokens.`;
    throw new ApiError(400, message, { param, code: "invalid_value" });
  }
}
