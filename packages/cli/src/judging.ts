import type { Engine } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { adapterHash, checkpointHash } from "@tempora/models";
import type { Aggregation } from "@tempora/preferences";
import {
  type Judge,
  type JudgeKind,
  type JudgeModel,
  type LoadedModel,
  makeJudge,
  mergeConfigs,
  paperSettings,
  parseConfig,
  type Settings,
  storedTemplate,
  type TemporaConfig,
  templateOf,
} from "@tempora/run";
import { dayText } from "@tempora/text";
import { type AdapterFlags, adapterOf } from "./adapter.ts";
import { loadConfigFile } from "./config-file.ts";
import type { Context } from "./context.ts";
import { loadEngine, type OpenModel, openModel } from "./model.ts";
import type { CacheFlags, EngineFlags, SamplingFlags } from "./options.ts";
import type { SkipFlags, TextFlags } from "./text-flags.ts";

export interface JudgeFlags extends AdapterFlags, EngineFlags, SamplingFlags, CacheFlags, TextFlags, SkipFlags {
  model?: string;
  judge: JudgeKind;
  template?: string;
  judgements: number;
  retries: number;
  aggregation: Aggregation;
  config?: string;
  endpoint?: string;
  endpointModel?: string;
  maxTokens: number;
}

/** The model that judges, opened and loaded when there is something to judge. */
export class JudgingModel implements Disposable {
  #opened: Promise<OpenModel> | null = null;
  #engine: Engine | null = null;
  /** What a chat template that asks for the date is told, also when the command runs past midnight. */
  readonly now: Date;

  constructor(
    readonly flags: JudgeFlags,
    readonly context: Context,
  ) {
    this.now = flags.date ?? new Date();
  }

  /** @throws TemporaError where none is named. */
  open(): Promise<OpenModel> {
    if (this.flags.model === undefined) throw noModel();
    this.#opened ??= openModel(this.flags.model, this.context);
    return this.#opened;
  }

  async model(): Promise<JudgeModel> {
    const { name, checkpoint } = await this.open();
    const { path: folder } = checkpoint;
    const { now } = this;
    return { name, folder, hash: await this.#hash(folder), now, load: () => this.#load() };
  }

  /** What the model's template is told of the date, where it asks for one: a part of the judgements' identity. */
  async date(judge: Judge): Promise<string | null> {
    if (judge.contextOf === undefined) return null;
    const tokenizer = await (await this.open()).tokenizer();
    return tokenizer.asksForDate ? dayText(this.now) : null;
  }

  /** Of the model, and of the adapter that it judges through. */
  async #hash(folder: string): Promise<string> {
    const base = await checkpointHash(folder);
    const adapter = adapterOf(await this.open(), this.flags);
    return adapter === null ? base : `${base} ${await adapterHash(adapter)}`;
  }

  async #load(): Promise<LoadedModel> {
    const model = await this.open();
    this.#engine ??= await loadEngine(model, this.flags, this.context);
    const { checkpoint } = model;
    return { engine: this.#engine, checkpoint, tokenizer: await model.tokenizer(), endTokens: await model.endTokens() };
  }

  [Symbol.dispose](): void {
    this.#engine?.dispose();
  }
}

/** For a judge that uses no model: what it never asks for. */
const unused: JudgeModel = { name: "", folder: "", hash: "", load: () => Promise.reject(noModel()) };

/** The judge that the settings and the flags describe. */
export async function judgeOf(
  settings: Settings["judge"],
  flags: JudgeFlags,
  model: JudgingModel,
  template: string | undefined,
): Promise<Judge> {
  const asks = settings.kind === "function" ? settings.quality?.kind : settings.kind;
  const usesModel = asks === "sampled" || asks === "expected";
  const stored = async () => (usesModel ? storedTemplate((await model.open()).checkpoint.path) : null);
  return makeJudge({
    settings,
    template: template === undefined ? await stored() : await templateOf(template),
    model: usesModel ? await model.model() : unused,
    seed: flags.seed,
    limits: { maxRows: flags.maxRows, maxCacheTokens: flags.maxCacheTokens },
    maxTokens: flags.maxTokens,
  });
}

/** The settings of the flags, over those of the configuration that they name. */
export async function judgeSettings(flags: JudgeFlags): Promise<Settings["judge"]> {
  const usesFile = flags.config !== undefined || flags.judge === "function";
  const file = usesFile ? await loadConfigFile(flags.config) : null;
  const { temperature, topP, topK, maxNewTokens } = flags;
  const over: TemporaConfig = {
    judge: {
      kind: flags.judge,
      judgements: flags.judgements,
      retries: flags.retries,
      aggregation: flags.aggregation,
      sampling: { temperature, topP, topK, maxNewTokens },
      ...(flags.endpoint === undefined ? {} : { endpoint: endpointOf(flags.endpoint, flags.endpointModel) }),
    },
  };
  const given: TemporaConfig = file?.config.judge === undefined ? {} : { judge: file.config.judge };
  return parseConfig(mergeConfigs(given, over), paperSettings, file?.file).settings.judge;
}

function endpointOf(baseUrl: string, model: string | undefined) {
  if (model !== undefined) return { baseUrl, model };
  throw new TemporaError("The endpoint's model is not named", {
    where: { field: "--endpoint-model" },
    remedy: "Give the name by which the server knows it.",
  });
}

function noModel(): TemporaError {
  return new TemporaError("The option --model <folder> is missing", {
    remedy: "Name the checkpoint that judges, or judge by --judge function or endpoint.",
  });
}
