import { describe, expect, it } from "vitest";
import { defineConfig, mergeConfigs, parseConfig } from "./config.ts";
import { paperSettings } from "./settings.ts";

const parse = (config: unknown) => parseConfig(config, paperSettings, "tempora.config.ts");

describe("parseConfig", () => {
  it("fills in the defaults around what is given", () => {
    const { settings, run, runs } = parse(defineConfig({ iterations: 3, loss: { beta: 0.5 } }));
    expect(settings.iterations).toBe(3);
    expect(settings.loss).toEqual({ ...paperSettings.loss, beta: 0.5 });
    expect([run, runs]).toEqual(["world-temporal", "runs"]);
  });

  it("names the field and the value that is wrong", () => {
    expect(() => parse({ sampling: { topP: 1.5 } })).toThrow(
      /The setting sampling.topP is 1.5: .*1 \(tempora.config.ts, field sampling.topP\)/,
    );
    expect(() => parse({ iterations: () => 3 })).toThrow(/The setting iterations is a function: .*expected number/);
    expect(() => parse({ strategy: "spin" })).toThrow(/field strategy/);
    expect(() => parse({ candidates: 1 })).toThrow(/field candidates/);
  });

  it("says of a setting that has no default and is not given that it is missing", () => {
    const terms = [{ type: "sft" }];
    expect(() => parse({ loss: { terms } })).toThrow(/The setting loss.terms.0.weight is missing: expected number \(/);
    expect(() => parse({ lora: { targets: ["q_proj"] } })).toThrow(
      /The setting lora.rank is missing: .*without its rank.*--lora-rank 16/,
    );
    expect(() => parse({ lora: { rank: "16" } })).toThrow(/The setting lora.rank is "16": .*expected number/);
    expect(parse({ lora: null }).settings.lora).toBeNull();
  });

  it("refuses a setting that does not exist, with its full path", () => {
    expect(() => parse({ training: { lr: 1 } })).toThrow(
      /There is no setting training.lr .*In training there are learningRate, scheduler, /,
    );
    expect(() => parse({ modle: "m" })).toThrow(/There is no setting modle .*There are model, .*, engine, run, runs\./);
    const deep = { judge: { functions: [{ name: "a", score: () => [], wieght: 1 }] } };
    expect(() => parse(deep)).toThrow(/functions\.0\.wieght.*In judge\.functions\.0 there are name, score, weight/);
    expect(() => parse({ judge: { endpoint: { url: "x" } } })).toThrow(/In judge\.endpoint there are baseUrl, model/);
    expect(() => parse({ judge: 1 })).toThrow(/The setting judge is 1: .*In judge there are kind, role, /);
    expect(() => parse({ past: { leg: 1 } })).toThrow(/field past/);
  });

  it.each(["__proto__", "constructor", "judge.__proto__", "toString"])("refuses %s, which every object has", (path) => {
    const config = path.split(".").reduceRight<unknown>((inner, name) => ({ [name]: inner }), { x: 1 });
    const merged = mergeConfigs({ seed: 1, judge: { retries: 2 } }, config as never);
    expect(Object.getPrototypeOf(merged)).toBe(Object.prototype);
    expect(() => parse(merged)).toThrow(`There is no setting ${path}`);
  });

  it("refuses settings that contradict each other", () => {
    expect(() => parse({ model: "m" })).toThrow(/without prompts/);
    expect(() => parse({ judge: { role: "external" } })).toThrow(/no model is named/);
    expect(() => parse({ baselines: ["temporal"] })).toThrow(/its own baseline/);
    expect(() => parse({ strategy: "past-only", nextStartsFrom: "future" })).toThrow(
      /No model of past-only is a future/,
    );
    expect(() => parse({ past: { lag: 0 } })).toThrow(/field past/);
    expect(() => parse({ run: "../x" })).toThrow(/field run/);
    expect(() => parse({ baselines: ["past-only", "past-only"] })).toThrow(/A baseline is named twice/);
    expect(() => parse({ prompts: "p" })).toThrow(/Prompts are given without a model/);
    expect(() => parse({ heldOutPrompts: "p" })).toThrow(/Held-out prompts are given without a model/);
    expect(() => parse({ adapter: "a" })).toThrow(/An adapter is given without a model/);
    const files = { model: "m", prompts: "p" };
    expect(() => parse({ ...files, adapter: "a", lora: { rank: 4 } })).toThrow(/and a new one is asked for/);
    expect(() => parse({ ...files, replay: { weight: 1 } })).toThrow(/Replay needs graded examples/);
    expect(() => parse({ loss: { terms: [{ type: "exo_pair", weight: 1 }] } })).toThrow(/needs label smoothing/);
  });

  it("lets later configurations override earlier ones", () => {
    const merged = mergeConfigs({ seed: 1, judge: { retries: 2 } }, { judge: { judgements: 5 } });
    expect(merged).toEqual({ seed: 1, judge: { retries: 2, judgements: 5 } });
    // What is not given overrides nothing; lists are replaced whole.
    expect(mergeConfigs({ seed: 1 }, { seed: undefined } as never)).toEqual({ seed: 1 });
    expect(mergeConfigs({ baselines: ["past-only", "future-only"] }, { baselines: ["self-rewarding"] })).toEqual({
      baselines: ["self-rewarding"],
    });
  });
});
