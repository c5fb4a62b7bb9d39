import { TemporaError } from "@tempora/errors";
import { defaultJudgeTemplate, type JudgeTemplate, secondYesNoTemplate, yesNoTemplate } from "@tempora/preferences";
import type { JudgeKind, JudgeSettings } from "../settings/judge-settings.ts";
import { namedTemplate } from "../settings/judge-template.ts";
import type { Settings } from "../settings/settings.ts";
import { endpointJudge } from "./endpoint.ts";
import { expectedJudge } from "./expected.ts";
import { functionJudge } from "./function.ts";
import type { Judge } from "./judge.ts";
import { type MixedPart, mixedJudge } from "./mixed.ts";
import { type JudgeModel, sampledJudge } from "./sampled.ts";

export interface JudgeChoice {
  settings: JudgeSettings;
  /** The template that is named, or that the checkpoint carries; null: the kind's own. */
  template: JudgeTemplate | null;
  /** The model that judges, for the kinds that use one. */
  model: JudgeModel;
  /** Instead of the settings' judgements. */
  judgements?: number;
  seed: number;
  limits: Settings["generation"];
  /** Tokens of a scoring pass at most. */
  maxTokens: number;
}

/** The judge that the settings describe. */
export function makeJudge(choice: JudgeChoice): Judge {
  const { settings } = choice;
  if (settings.kind !== "function") return judgeOfKind(choice, settings.kind);
  const parts = settings.functions.map(
    (part): MixedPart => ({ name: part.name, weight: part.weight, judge: functionJudge(part) }),
  );
  if (settings.quality !== null) {
    const { kind, weight } = settings.quality;
    parts.push({ name: "quality", weight, judge: judgeOfKind(choice, kind) });
  }
  const [only] = parts;
  if (only === undefined) throw noFunctions();
  return parts.length === 1 ? only.judge : mixedJudge(parts, settings.aggregation);
}

function judgeOfKind(choice: JudgeChoice, kind: Exclude<JudgeKind, "function">): Judge {
  const { settings, model, seed, limits, maxTokens } = choice;
  const template = choice.template ?? defaultTemplate(kind);
  if (kind === "expected") return expectedJudge({ model, template, maxTokens });
  const { retries, sampling, endpoint } = settings;
  const judgements = choice.judgements ?? settings.judgements;
  const spoken = { template, judgements, retries, sampling, seed };
  if (kind === "sampled") return sampledJudge({ ...spoken, model, limits });
  if (endpoint === null) {
    throw new TemporaError("The judge is an endpoint, and none is named", {
      where: { field: "judge.endpoint" },
      remedy: "Give its baseUrl and its model.",
    });
  }
  return endpointJudge({ ...spoken, endpoint });
}

/**
 * The judge that measures the gap of pairs which the first one picked: further judgements where it samples, the question
 * in other words where it always says the same; null where it cannot say anything new.
 */
export function secondJudge(choice: JudgeChoice): Judge | null {
  const { settings } = choice;
  if (settings.kind === "function" || settings.heldBack === 0) return null;
  if (settings.kind !== "expected") {
    return settings.sampling.temperature === 0 ? null : makeJudge({ ...choice, judgements: settings.heldBack });
  }
  const template = secondTemplate(choice);
  return template === null ? null : judgeOfKind({ ...choice, template }, "expected");
}

function secondTemplate({ settings, template }: JudgeChoice): JudgeTemplate | null {
  const { secondTemplate: named } = settings;
  if (named === null) {
    return template === null || template.name === yesNoTemplate.name ? secondYesNoTemplate : null;
  }
  return typeof named === "string" ? namedTemplate(named) : named;
}

function defaultTemplate(kind: JudgeKind): JudgeTemplate {
  return kind === "expected" ? yesNoTemplate : defaultJudgeTemplate;
}

function noFunctions(): TemporaError {
  return new TemporaError("The judge is a function, and there is none", {
    where: { field: "judge.functions" },
    remedy: "List functions in tempora.config.ts: functions: [{ name, score }].",
  });
}
