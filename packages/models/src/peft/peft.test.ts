import { copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { editJson, oracle, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { readModelConfig } from "../config.ts";
import { type AdapterFolder, adapterHash, openAdapter, saveAdapter } from "./folder.ts";
import { saveGgufAdapter } from "./gguf.ts";

const folder = await scratch();
let copies = 0;

/** A copy of an oracle's adapter with its config edited. */
function copyOf(family: string, edit: (raw: Record<string, unknown>) => void = () => {}): string {
  const target = join(folder, `copy-${copies++}`);
  mkdirSync(target);
  for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
    copyFileSync(oracle(family, "lora/adapter", name), join(target, name));
  }
  editJson(join(target, "adapter_config.json"), edit);
  return target;
}

describe("openAdapter", () => {
  test("reads what PEFT wrote", async () => {
    const adapter = await openAdapter(oracle("llama", "lora/adapter"));
    expect(adapter.base).toBe("../../reference");
    expect(adapter.config).toMatchObject({
      rank: 4,
      alpha: 8,
      rsLora: false,
      targets: ["down_proj", "q_proj", "v_proj"],
    });
    const names = (await Array.fromAsync(adapter.tensors())).map(({ name }) => name);
    expect(names).toContain("model.layers.0.self_attn.q_proj.lora_A.weight");
  });

  test.each<[string, (raw: Record<string, unknown>) => void, string]>([
    ["another method", (raw) => Object.assign(raw, { peft_type: "IA3" }), "The adapter is IA3, not LORA"],
    ["DoRA", (raw) => Object.assign(raw, { use_dora: true }), "The engine does not compute use_dora true"],
    ["biases", (raw) => Object.assign(raw, { bias: "all" }), 'The engine does not compute bias "all"'],
    ["saved modules", (raw) => Object.assign(raw, { modules_to_save: ["lm_head"] }), "modules_to_save"],
    [
      "a field of the future",
      (raw) => Object.assign(raw, { use_quantum: true }),
      "The engine does not compute use_quantum true",
    ],
    [
      "a base that PiSSA changed",
      (raw) => Object.assign(raw, { init_lora_weights: "pissa_niter_4" }),
      "changed its base",
    ],
    ["no rank", (raw) => delete raw.r, "is missing"],
    ["transposed matrices", (raw) => Object.assign(raw, { fan_in_fan_out: true }), "transposed"],
    ["no targets", (raw) => Object.assign(raw, { target_modules: null }), "target_modules is missing"],
  ])("refuses %s", async (_, edit, message) => {
    await expect(openAdapter(copyOf("llama", edit))).rejects.toThrow(message);
  });

  test("takes what says nothing about the numbers", async () => {
    const other = copyOf("llama", (raw) =>
      Object.assign(raw, { inference_mode: false, peft_version: "9", new_thing: null }),
    );
    expect(await adapterHash(other)).toBe(await adapterHash(oracle("llama", "lora/adapter")));
    const scaled = copyOf("llama", (raw) => Object.assign(raw, { lora_alpha: 9 }));
    expect(await adapterHash(scaled)).not.toBe(await adapterHash(other));
  });
});

test("a whole model is no adapter, and is told so", async () => {
  await expect(openAdapter(oracle("llama", "reference"))).rejects.toThrow(
    /This is a whole model, no LoRA adapter.*--model/,
  );
});

describe("saveAdapter", () => {
  test("refuses a config that says something else, and a folder that is no adapter's", async () => {
    const source = await openAdapter(oracle("llama", "lora/adapter"));
    const options = { config: source.config, raw: { ...source.raw, r: 8 }, ...(await contentOf(source)) };
    await expect(saveAdapter(join(folder, "wrong"), options)).rejects.toThrow("says 8 where the adapter has 4");
    const foreign = join(folder, "foreign");
    mkdirSync(join(foreign, "something"), { recursive: true });
    await expect(saveAdapter(foreign, { ...options, raw: source.raw })).rejects.toThrow(
      "something else than an adapter",
    );
  });
});

/** Parameters and tensors of an adapter, as an engine gives them. */
async function contentOf(adapter: AdapterFolder) {
  const sources = await Array.fromAsync(adapter.tensors());
  const tensors = await Promise.all(
    sources.map(async ({ name, shape, read }) => ({ name, shape, dtype: "f32" as const, bytes: await read() })),
  );
  return { parameters: sources.map(({ name, shape }) => ({ name, shape })), tensors };
}

test("saveGgufAdapter writes llama.cpp's names, type and alpha", async () => {
  for (const [family, alpha] of [
    ["llama", 8],
    ["llama3", 8 * Math.sqrt(4)],
  ] as const) {
    const adapter = await openAdapter(oracle(family, "lora/adapter"));
    const { config } = await readModelConfig(oracle(family, "reference"));
    const file = join(folder, `${family}.gguf`);
    await saveGgufAdapter(adapter, config, file);
    const bytes = readFileSync(file);
    const text = bytes.toString("latin1");
    expect(text.slice(0, 4)).toBe("GGUF");
    for (const word of [
      "general.type",
      "adapter",
      "adapter.type",
      "lora",
      "blk.0.attn_q.weight.lora_a",
      "blk.0.attn_q.weight.lora_b",
    ]) {
      expect(text).toContain(word);
    }
    const key = "adapter.lora.alpha";
    expect(bytes.readFloatLE(text.indexOf(key) + key.length + 4)).toBeCloseTo(alpha, 4);
  }
});
