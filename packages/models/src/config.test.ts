import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ModelConfig } from "@tempora/engine/model";
import { failure, families, olderReference, oracle, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { newModelConfigJson, parseModelConfig, readModelConfig } from "./config.ts";

const llama = {
  architectures: ["LlamaForCausalLM"],
  hidden_size: 64,
  intermediate_size: 176,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  max_position_embeddings: 1024,
  vocab_size: 512,
};
const qwen2 = { ...llama, architectures: ["Qwen2ForCausalLM"] };
const qwen3 = { ...llama, architectures: ["Qwen3ForCausalLM"] };
const mistral = { ...llama, architectures: ["MistralForCausalLM"] };
const parse = (raw: Record<string, unknown>) => parseModelConfig(raw, "config.json");
const refusal = (raw: Record<string, unknown>) => failure(() => parse(raw));

describe("config.json of the oracles", () => {
  test.each(families)("%s reads the same in both styles", async (family) => {
    const { config } = await readModelConfig(oracle(family, "reference"));
    const older = await readModelConfig(olderReference(family));
    expect(older.config).toEqual(config);
    expect(older.raw.rope_theta).toBe(config.ropeTheta);
  });

  test("llama3 gives its rope scaling, one key head and a tied head", async () => {
    const { config } = await readModelConfig(oracle("llama3", "policy"));
    expect(config).toMatchObject({ kvHeads: 1, headDim: 16, tiedHead: true, ropeTheta: 500_000 });
    expect(config.ropeScaling).toEqual({
      type: "llama3",
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 64,
    });
  });

  test("each family has its own biases, norms, windows and head size", async () => {
    const read = async (family: string) => (await readModelConfig(oracle(family, "policy"))).config;
    expect(await read("qwen2")).toMatchObject({ family: "qwen2", qkvBias: true, outputBias: false, qkNorm: false });
    expect(await read("qwen3")).toMatchObject({ family: "qwen3", qkvBias: false, qkNorm: true, headDim: 32 });
    expect(await read("mistral")).toMatchObject({ family: "mistral", windows: [24, 24] });
    expect(await read("llama")).toMatchObject({ family: "llama", windows: [0, 0], qkvBias: false });
  });
});

describe("defaults are those of transformers", () => {
  test("a Llama of few fields", () => {
    expect(parse(llama)).toEqual({
      family: "llama",
      vocabSize: 512,
      hiddenSize: 64,
      intermediateSize: 176,
      layers: 4,
      heads: 4,
      kvHeads: 4,
      headDim: 16,
      normEps: 1e-6,
      tiedHead: false,
      qkvBias: false,
      outputBias: false,
      qkNorm: false,
      windows: [0, 0, 0, 0],
      ropeTheta: 10_000,
      ropeScaling: null,
      maxPositions: 1024,
    } satisfies ModelConfig);
  });

  test("null means the same as a missing field for heads and head size", () => {
    expect(parse({ ...llama, head_dim: null, num_key_value_heads: null })).toEqual(parse(llama));
  });

  test("attention_bias puts a bias on all four projections of a Llama, and none on a Mistral", () => {
    expect(parse({ ...llama, attention_bias: true })).toMatchObject({ qkvBias: true, outputBias: true });
    expect(parse({ ...mistral, num_key_value_heads: 2, attention_bias: true })).toMatchObject({ qkvBias: false });
  });

  test("Qwen3 has heads of 128, Mistral eight key heads and a window of 4096", () => {
    expect(parse(qwen3).headDim).toBe(128);
    const wide = { ...mistral, num_attention_heads: 16 };
    expect(parse(wide)).toMatchObject({ kvHeads: 8, windows: [4096, 4096, 4096, 4096] });
    expect(parse({ ...wide, sliding_window: null }).windows).toEqual([0, 0, 0, 0]);
  });

  test("Qwen2 slides from max_window_layers on, and only when use_sliding_window says so", () => {
    const sliding = { ...qwen2, sliding_window: 8, max_window_layers: 1 };
    expect(parse(sliding).windows).toEqual([0, 0, 0, 0]);
    expect(parse({ ...sliding, use_sliding_window: true }).windows).toEqual([0, 8, 8, 8]);
    const types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"];
    expect(parse({ ...sliding, use_sliding_window: true, layer_types: types }).windows).toEqual([8, 0, 0, 8]);
  });

  test("a config without architectures is known by its model_type", () => {
    const { architectures: _, ...rest } = llama;
    expect(parse({ ...rest, model_type: "llama" }).family).toBe("llama");
  });
});

describe("rotary settings", () => {
  test("linear scaling by both names of its type", () => {
    const linear = { type: "linear", factor: 2 };
    expect(parse({ ...llama, rope_theta: 5e5, rope_scaling: linear })).toMatchObject({
      ropeTheta: 5e5,
      ropeScaling: linear,
    });
    expect(parse({ ...llama, rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 7 } })).toMatchObject({
      ropeTheta: 7,
      ropeScaling: linear,
    });
  });

  test("llama3 without its original context takes max_position_embeddings", () => {
    const scaling = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
    expect(parse({ ...llama, rope_scaling: scaling }).ropeScaling).toMatchObject({ originalMaxPositions: 1024 });
  });

  test("settings by layer type are taken when they agree and refused when they do not", async () => {
    const types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"];
    const sliding = { ...qwen2, use_sliding_window: true, sliding_window: 8, layer_types: types };
    const one = { rope_type: "default", rope_theta: 77 };
    const agreed = { full_attention: one, sliding_attention: one };
    expect(parse({ ...sliding, rope_parameters: agreed }).ropeTheta).toBe(77);
    const error = await refusal({ ...sliding, rope_parameters: { ...agreed, sliding_attention: { rope_theta: 5 } } });
    expect(error.message).toBe(
      "rope_parameters asks for rotary settings that differ between layer types, which Tempora does not compute " +
        "(config.json, field rope_parameters). Choose a model without it.",
    );
  });

  test.each(["yarn", "dynamic", "longrope", "su", "mrope"])("the rope type %s is refused by name", async (type) => {
    const message =
      `rope_scaling.rope_type asks for rope type "${type}", which Tempora does not compute ` +
      "(config.json, field rope_scaling.rope_type). Choose a model with one of: default, linear and llama3.";
    expect((await refusal({ ...llama, rope_scaling: { rope_type: type, factor: 4 } })).message).toBe(message);
    const old = await refusal({ ...llama, rope_scaling: { type, factor: 4 } });
    expect(old.where.field).toBe("rope_scaling.type");
  });

  test("a scaling without its numbers is refused", async () => {
    expect((await refusal({ ...llama, rope_scaling: { type: "linear" } })).what).toBe("rope_scaling.factor is missing");
    const scaling = { rope_type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 1 };
    const error = await refusal({ ...llama, rope_scaling: scaling });
    expect(error.what).toBe("rope_scaling.high_freq_factor must be a number above 4, not 1");
  });
});

describe("what the engine does not compute is refused by name", () => {
  const cases: [string, Record<string, unknown>, RegExp][] = [
    ["architectures", { architectures: ["GemmaForCausalLM"] }, /architecture GemmaForCausalLM.*LlamaForCausalLM/],
    [
      "architectures",
      { architectures: ["Phi3ForCausalLM"] },
      /Mistral.*`trl dpo .*`llama-server -m .*--judge endpoint/,
    ],
    ["architectures", { architectures: ["Qwen3MoeForCausalLM"] }, /Mistral.*`trl dpo .*`llama-server -m/],
    ["hidden_act", { hidden_act: "gelu" }, /activation "gelu"/],
    ["mlp_bias", { mlp_bias: true }, /biases in the MLP/],
    ["pretraining_tp", { pretraining_tp: 2 }, /sliced linear layers/],
    ["partial_rotary_factor", { partial_rotary_factor: 0.5 }, /a part of each head/],
    ["rope_parameters.partial_rotary_factor", { rope_parameters: { partial_rotary_factor: 0.5 } }, /a part of each/],
    ["attention_dropout", { attention_dropout: 0.1 }, /dropout/],
    ["rope_interleaved", { rope_interleaved: true }, /interleaved/],
    ["layer_types", { layer_types: Array(4).fill("sliding_attention") }, /sliding windows in a Llama/],
    ["layer_types", { layer_types: Array(4).fill("linear_attention") }, /layers of type "linear_attention"/],
  ];
  test.each(cases)("%s %o", async (field, change, message) => {
    const error = await refusal({ ...llama, ...change });
    expect(error.where).toEqual({ file: "config.json", field });
    expect(error.message).toMatch(message);
    expect(error.remedy).toMatch(/^Choose a model/);
  });

  test("quantized weights, with how to come by others", async () => {
    const parsed = (raw: object) =>
      failure(() => parseModelConfig({ ...llama, ...raw }, "/models/small-4bit/config.json"));
    const gptq = await parsed({ quantization_config: { quant_method: "gptq" } });
    expect(gptq.where.field).toBe("quantization_config");
    expect(gptq.message).toMatch(/quantized weights \(gptq\).*the model that it was quantized from.*a GGUF file/s);
    expect(gptq.message).not.toContain("dequantize");
    const bits = await parsed({ quantization_config: { quant_method: "bitsandbytes", load_in_8bit: true } });
    expect(bits.remedy).toContain("from_pretrained('/models/small-4bit').dequantize().save_pretrained('unquantized')");
    const mlx = await parsed({ quantization: { group_size: 64, bits: 4 } });
    expect(mlx.where.field).toBe("quantization");
  });

  test("layer types that contradict the window settings", async () => {
    const types = ["full_attention", "full_attention", "full_attention", "sliding_attention"];
    const switched = await refusal({ ...qwen2, layer_types: types, sliding_window: 8 });
    expect(switched.what).toContain("sliding attention while use_sliding_window is false");
    const mixed = await refusal({ ...mistral, num_key_value_heads: 4, layer_types: types });
    expect(mixed.what).toContain("layer types that disagree with sliding_window");
  });
});

describe("values that make no sense are refused", () => {
  const cases: [string, Record<string, unknown>, string][] = [
    ["hidden_size", { hidden_size: undefined }, "hidden_size is missing"],
    ["hidden_size", { hidden_size: "64" }, 'hidden_size must be a number, not "64"'],
    ["num_hidden_layers", { num_hidden_layers: 3e8 }, "num_hidden_layers must be at most 100000, not 300000000"],
    ["num_hidden_layers", { num_hidden_layers: 0 }, "num_hidden_layers must be a number of at least 1, not 0"],
    ["vocab_size", { vocab_size: 1.5 }, "vocab_size must be an integer, not 1.5"],
    ["rms_norm_eps", { rms_norm_eps: 0 }, "rms_norm_eps must be a number above 0, not 0"],
    ["head_dim", { head_dim: 15 }, "head_dim must be even, not 15"],
    ["num_key_value_heads", { num_key_value_heads: 3 }, "must be a divisor of num_attention_heads (4), not 3"],
    ["hidden_size", { hidden_size: 66 }, "must be a multiple of num_attention_heads (4) when head_dim is not given"],
    ["layer_types", { layer_types: ["full_attention"] }, "must be a list of num_hidden_layers (4) entries"],
    ["tie_word_embeddings", { tie_word_embeddings: "no" }, "must be true or false"],
    ["rope_scaling", { rope_scaling: 2 }, "rope_scaling must be an object, not 2"],
    ["architectures", { architectures: "LlamaForCausalLM" }, "must be a list of strings"],
  ];
  test.each(cases)("%s: %o", async (field, change, message) => {
    const error = await refusal({ ...llama, ...change });
    expect(error.where.field).toBe(field);
    expect(error.what).toContain(message);
  });

  test("a missing, broken or foreign config.json is named", async () => {
    const folder = await scratch();
    const file = join(folder, "config.json");
    const missing = await failure(() => readModelConfig(folder));
    expect(missing.message).toBe(`Cannot read the model's config.json: it does not exist (${file}). Check the path.`);
    await writeFile(file, "{");
    expect((await failure(() => readModelConfig(folder))).what).toMatch(/^The model's config.json is not valid JSON/);
    await writeFile(file, "[]");
    expect((await failure(() => readModelConfig(folder))).what).toMatch(/does not hold a JSON object/);
  });
});

describe("newModelConfigJson", () => {
  test.each(families)("what it writes for %s reads back the same", async (family) => {
    const { config } = await readModelConfig(oracle(family, "policy"));
    const json = newModelConfigJson(config, { bos: null, eos: [2, 3], pad: 0 }, "bf16");
    expect(parse(JSON.parse(JSON.stringify(json)))).toEqual(config);
    expect(json).toMatchObject({ dtype: "bfloat16", torch_dtype: "bfloat16", eos_token_id: [2, 3] });
  });

  test("windows on some layers and scaled positions survive", () => {
    const config: ModelConfig = {
      ...parse({ ...qwen3, head_dim: 6, attention_bias: true }),
      windows: [0, 7, 0, 7],
      ropeScaling: { type: "linear", factor: 2.5 },
    };
    expect(parse(newModelConfigJson(config, {}, "f32"))).toEqual(config);
  });
});
