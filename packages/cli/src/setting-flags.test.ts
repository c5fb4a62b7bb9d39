import { paperSettings, parseConfig } from "@tempora/run";
import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { addSettingFlags, type SettingFlags, settingsOf } from "./setting-flags.ts";

function settings(...argv: string[]) {
  const command = addSettingFlags(new Command());
  command.parse(argv, { from: "user" });
  const files = { model: "model", prompts: "prompts.jsonl" };
  return parseConfig({ ...files, ...settingsOf(command.opts<SettingFlags>()) }, paperSettings).settings;
}

describe("the setting flags of train", () => {
  it("say in their help what holds without them", () => {
    const help = addSettingFlags(new Command().configureHelp({ helpWidth: 1000 })).helpInformation();
    const { loss, training, sampling, judge } = paperSettings;
    for (const [flag, value] of [
      ["--beta", loss.beta],
      ["--lr", training.learningRate],
      ["--epochs", training.epochs],
      ["--max-new-tokens", sampling.maxNewTokens],
      ["--temperature", sampling.temperature],
      ["--judgements", judge.judgements],
    ] as const) {
      expect(help).toMatch(new RegExp(`${flag} <.*\\(default with --model: ${value}\\)`));
    }
  });

  it("leave every setting alone that they do not name", () => {
    expect(settings()).toEqual({ ...paperSettings, model: "model", prompts: "prompts.jsonl" });
  });

  it("set what they stand for: answers of the loop and of the evaluation alike", () => {
    const { loss, training, sampling, evaluation, judge } = settings(
      ...["--loss", "sigmoid,sft:0.3", "--beta", "0.3", "--lr", "2e-6", "--epochs", "2", "--gradient-checkpointing"],
      ...["--max-new-tokens", "112", "--temperature", "1", "--judgements", "5"],
    );
    expect(loss.terms.map(({ type, weight }) => [type, weight])).toEqual([
      ["sigmoid", 1],
      ["sft", 0.3],
    ]);
    expect(loss.beta).toBe(0.3);
    expect(training).toEqual({ ...paperSettings.training, learningRate: 2e-6, epochs: 2, gradientCheckpointing: true });
    expect(sampling).toEqual({ ...paperSettings.sampling, maxNewTokens: 112, temperature: 1 });
    expect(evaluation.sampling).toEqual({ ...paperSettings.evaluation.sampling, maxNewTokens: 112, temperature: 1 });
    expect(judge.judgements).toBe(5);
  });

  it("set the texts, the adapter and the end of a run", () => {
    const all = settings(
      ...["--system", "Be brief.", "--chat-template-kwargs", '{"enable_thinking": false}', "--date", "2026-01-31"],
      ...["--skip-too-long", "--stop-when-worse", "2", "--judge", "expected"],
      ...["--lora-rank", "8", "--lora-alpha", "4", "--lora-dropout", "0.1", "--rslora", "--optimizer", "adamw_8bit"],
    );
    expect(all).toMatchObject({
      system: "Be brief.",
      chatTemplateKwargs: { enable_thinking: false },
      skipTooLong: true,
      stopWhenWorse: 2,
      judge: { kind: "expected" },
      lora: { rank: 8, alpha: 4, dropout: 0.1, rsLora: true },
      engine: { moments: "8bit" },
    });
    expect(all.date).toContain("2026-01-31");
    expect(settings("--adapter", "a").adapter).toBe("a");
  });

  it("set a text that no JSON is, spaces and signs of equality included", () => {
    expect(settings("--set", "system=a = b").system).toBe("a = b");
    expect(settings("--set", " judge.retries = 1 ", "--set", "date=null").judge.retries).toBe(1);
  });

  it("set the judge's endpoint as the remedy says that names none", () => {
    const endpoint = { baseUrl: "http://127.0.0.1:1/v1", model: "a" };
    expect(() => settings("--judge", "endpoint")).toThrow(
      /--set judge\.endpoint\.baseUrl=URL --set judge\.endpoint\.model=NAME/,
    );
    const set = ["--set", `judge.endpoint.baseUrl=${endpoint.baseUrl}`, "--set", "judge.endpoint.model=a"];
    expect(settings("--judge", "endpoint", ...set).judge.endpoint).toMatchObject(endpoint);
  });

  it("set any setting by its path, over the flags beside it", () => {
    const set = ["--set", "judge.limits.maxTieRate=1", "--set", "training.betas=[0.9,0.95]", "--set", "loss.beta=0.5"];
    const { judge, training, loss, strategy } = settings("--beta", "0.3", ...set, "--set", "strategy=past-only");
    expect(judge.limits).toEqual({ ...paperSettings.judge.limits, maxTieRate: 1 });
    expect(training.betas).toEqual([0.9, 0.95]);
    expect(loss.beta).toBe(0.5);
    expect(strategy).toBe("past-only");
  });

  it("refuse what is no setting, naming it", () => {
    expect(() => settings("--set", "judge.retires=1")).toThrow(/There is no setting judge\.retires/);
    expect(() => settings("--set", "__proto__.x=1")).toThrow(
      /There is no setting __proto__ .*There are model, adapter/,
    );
    expect(() => settings("--set", "iterations=many")).toThrow(/iterations is "many"/);
    expect(() => settings("--set", "iterations")).toThrow(/sets nothing/);
    expect(() => settings("--set", "=3")).toThrow(/sets nothing/);
  });

  it("name the flag that is missing where an adapter is described but has no rank", () => {
    expect(() => settings("--lora-targets", "q_proj")).toThrow(/without its rank.*--lora-rank 16/);
    expect(settings("--lora-targets", "q_proj", "--lora-rank", "4").lora).toMatchObject({
      rank: 4,
      targets: ["q_proj"],
    });
  });
});
