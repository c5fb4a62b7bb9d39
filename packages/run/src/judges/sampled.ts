import { type JudgeTemplate, judgePromptParts } from "@tempora/preferences";
import type { LoadedModel } from "../models/model-host.ts";
import { Meter } from "../results/ledger.ts";
import { meterPrompts, type SamplingRequest, sample } from "../sampling/sampling.ts";
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
  readonly #prompts: (number[] | null)[];

  constructor(
    readonly loaded: LoadedModel,
    readonly options: SampledJudgeOptions,
    readonly responses: readonly Response[],
    readonly signal: AbortSignal | undefined,
  ) {
    const { tokenizer, checkpoint } = loaded;
    this.meter = new Meter(checkpoint.config);
    this.#prompts = responses.map((response) => {
      const ids = judgePromptIds(options.template, response, tokenizer, options.model.now);
      return ids.length < checkpoint.config.maxPositions ? ids : null;
    });
  }

  fits(response: number): boolean {
    return this.#prompts[response] !== null;
  }

  onAttempt(asked: readonly Asked[]): void {
    meterPrompts(
      this.meter,
      asked.map((one) => this.#request(one)),
    );
  }

  charge(response: number, tokens: number): void {
    this.meter.generated(this.#prompts[response]?.length ?? 0, tokens, "judgement");
  }

  async *speak(asked: readonly Asked[]): AsyncGenerator<Spoken> {
    const { sampling, limits, seed } = this.options;
    // One that lacks a sample gets all of its samples again; one that lacks none still shapes the forest.
    const requests = asked.map((one) => {
      const request = this.#request(one);
      return one.have.size < one.samples ? request : { ...request, samples: 0 };
    });
    const options = { sampling, limits, seed, signal: this.signal };
    for await (const { request, sample: number, text, ids, finishReason } of sample(this.loaded, requests, options)) {
      yield { asked: request, sample: number, text, tokens: ids.length, finished: finishReason === "stop" };
    }
  }

  #request({ response, attempt, samples }: Asked): SamplingRequest {
    const { promptText, text, variables } = this.responses[response] as Response;
    return {
      key: JSON.stringify([promptText, text, attempt, variables]),
      ids: this.#prompts[response] as number[],
      samples,
    };
  }
}
