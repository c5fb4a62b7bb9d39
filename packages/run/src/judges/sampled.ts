import type { Forest } from "@tempora/engine";
import { type JudgeTemplate, judgePromptParts } from "@tempora/preferences";
import type { LoadedModel } from "../models/model-host.ts";
import { Meter } from "../results/ledger.ts";
import { type SamplingRequest, sample } from "../sampling/sampling.ts";
import { templateJson } from "../settings/judge-template.ts";
import type { Settings } from "../settings/settings.ts";
import { judgePromptIds } from "../sources/conversation.ts";
import { type Judge, type JudgedRows, type JudgeWork, type Response, readJudgements } from "./judge.ts";
import { type Asked, type Speaker, type Spoken, SpokenJudging } from "./spoken.ts";

/** The model whose weights judge. */
export interface JudgeModel {
  name: string;
  folder: string;
  hash: string;
  /** What its chat template is told when it asks for the date; default: this moment. */
  now?: Date;
  /** Called when there is something to judge. */
  load(): Promise<LoadedModel>;
}

export interface SampledJudgeOptions {
  model: JudgeModel;
  template: JudgeTemplate;
  judgements: number;
  retries: number;
  sampling: Settings["sampling"];
  limits: Settings["generation"];
  seed: number;
}

/** The paper's judge: the model writes judgements, several of each response, that end with a score. */
export function sampledJudge(options: SampledJudgeOptions): Judge {
  const { model, template, judgements, retries, sampling, seed } = options;
  const judge: Judge = {
    kind: "sampled",
    name: model.name,
    origin: model.folder,
    identity: {
      kind: "sampled",
      judge: model.hash,
      template: templateJson(template),
      judgements,
      retries,
      sampling,
      seed,
    },
    scale: { min: 0, max: template.maxScore },
    perResponse: judgements,
    deterministic: sampling.temperature === 0,
    readsColumns: false,
    question: ({ promptText, text }) => judgePromptParts(template, promptText, text),
    contextOf: (response, tokenizer) =>
      judgePromptIds(template, response, tokenizer, model.now).length + sampling.maxNewTokens,
    judge: (responses, work) => judgeBySampling(judge, options, responses, work),
  };
  return judge;
}

async function judgeBySampling(
  judge: Judge,
  options: SampledJudgeOptions,
  responses: readonly Response[],
  work: JudgeWork,
): Promise<JudgedRows> {
  const { judgements, retries, template } = options;
  const loaded = await options.model.load();
  const speaker = new ModelSpeaker(loaded, options, responses, work.signal);
  const spoken = { judgements, retries, maxScore: template.maxScore };
  const rows = await new SpokenJudging(judge, speaker, responses, spoken, work).run();
  // In the order of the log, so that the sums do not tell in which order the judgements ended.
  for await (const { response, tokens } of readJudgements(work.folder, rows)) speaker.charge(response, tokens);
  return { rows, totals: speaker.meter.totals };
}

class ModelSpeaker implements Speaker {
  readonly meter: Meter;
  /** [responses] tokens of each one's prompt, once it was asked about. The ids of a million prompts are not kept. */
  readonly #promptTokens: Uint32Array;
  #last: { response: number; ids: number[] } | null = null;

  constructor(
    readonly loaded: LoadedModel,
    readonly options: SampledJudgeOptions,
    readonly responses: readonly Response[],
    readonly signal: AbortSignal | undefined,
  ) {
    this.meter = new Meter(loaded.checkpoint.config);
    this.#promptTokens = new Uint32Array(responses.length);
  }

  fits(response: number): boolean {
    return this.#promptOf(response).length < this.loaded.checkpoint.config.maxPositions;
  }

  charge(response: number, tokens: number): void {
    this.meter.generated(this.#promptTokens[response] as number, tokens, "judgement");
  }

  async *speak(asked: Iterable<Asked>): AsyncGenerator<Spoken> {
    const { sampling, limits, seed } = this.options;
    const responses: number[] = [];
    const onPrompts = (forest: Forest) => this.meter.prompts(forest);
    const options = { sampling, limits, seed, signal: this.signal, onPrompts };
    const requests = this.#requests(asked, ({ response }) => responses.push(response));
    for await (const { request, sample: number, text, ids, finishReason } of sample(this.loaded, requests, options)) {
      const finished = finishReason === "stop";
      yield { response: responses[request] as number, sample: number, text, tokens: ids.length, finished };
    }
  }

  *#requests(asked: Iterable<Asked>, onRequest: (asked: Asked) => void): Generator<SamplingRequest> {
    for (const one of asked) {
      const { response, attempt, samples, have } = one;
      const { promptText, text, variables } = this.responses[response] as Response;
      onRequest(one);
      yield {
        key: JSON.stringify([promptText, text, attempt, variables]),
        ids: this.#promptOf(response),
        // One that lacks a sample gets all of its samples again; one that lacks none still shapes the forest.
        samples: have.size < samples ? samples : 0,
      };
    }
  }

  /** Room and request ask for the same prompt one after the other. */
  #promptOf(response: number): number[] {
    if (this.#last?.response === response) return this.#last.ids;
    const { template, model } = this.options;
    const ids = judgePromptIds(template, this.responses[response] as Response, this.loaded.tokenizer, model.now);
    this.#promptTokens[response] = ids.length;
    this.#last = { response, ids };
    return ids;
  }
}
