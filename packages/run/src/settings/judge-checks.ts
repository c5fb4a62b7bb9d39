import { judgeTemplates } from "@tempora/preferences";
import type { JudgeSettings } from "./judge-settings.ts";
import { namedTemplate } from "./judge-template.ts";

type Fail = (what: string, field: string, remedy: string) => never;

/** Refuses settings of the judge that contradict each other. */
export function checkJudge(judge: JudgeSettings, fail: Fail): void {
  checkModel(judge, fail);
  checkFunctions(judge, fail);
  const asksEndpoint = judge.kind === "endpoint" || (judge.kind === "function" && judge.quality?.kind === "endpoint");
  if (asksEndpoint && judge.endpoint === null) {
    fail(
      "The judge is an endpoint and none is named",
      "judge.endpoint",
      "Give its baseUrl and its model: --set judge.endpoint.baseUrl=URL --set judge.endpoint.model=NAME, for `tempora judge` --endpoint URL --endpoint-model NAME.",
    );
  }
  if (asksEndpoint && judge.sampling.topK !== 0) {
    fail("An endpoint knows no topK", "judge.sampling.topK", "Set it to 0; topP is known to all servers.");
  }
  for (const field of ["template", "secondTemplate"] as const) {
    const template = judge[field];
    if (typeof template !== "string" || namedTemplate(template) !== null) continue;
    const names = judgeTemplates.map(({ name }) => name).join(", ");
    fail(`There is no judge's template "${template}"`, `judge.${field}`, `Write it out, or name one of ${names}.`);
  }
}

function checkModel({ role, model }: JudgeSettings, fail: Fail): void {
  if (role === "external" && model === null) {
    fail("The judge is external and no model is named", "judge.model", "Name the judge's checkpoint folder.");
  }
  if (role !== "external" && model !== null) {
    fail("A judge's model is named that does not judge", "judge.role", 'Set judge.role to "external".');
  }
}

function checkFunctions({ kind, functions, quality }: JudgeSettings, fail: Fail): void {
  if (kind === "function" && functions.length === 0) {
    fail(
      "The judge is a function and there is none",
      "judge.functions",
      "List them in tempora.config.ts, judge: { functions: [{ name, score }] }, or name the file that does (--config for `tempora judge`).",
    );
  }
  // The default kind: whoever lists functions means them.
  if (kind === "sampled" && (functions.length > 0 || quality !== null)) {
    fail("Functions are listed that do not judge", "judge.kind", 'Set judge.kind to "function".');
  }
  const names = functions.map(({ name }) => name);
  const twice = names.find((name, index) => name === "quality" || names.indexOf(name) !== index);
  if (twice !== undefined) {
    fail(`Two parts of the judge are named ${twice}`, "judge.functions", "Give each function a name of its own.");
  }
  const weight = functions.reduce((sum, part) => sum + Math.abs(part.weight), quality?.weight ?? 0);
  if (kind === "function" && !(weight > 0)) {
    fail("The parts of the judge weigh nothing", "judge.functions", "Give at least one a weight.");
  }
}
