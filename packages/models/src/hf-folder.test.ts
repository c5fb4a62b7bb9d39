import { cp, mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { editJson, oracle, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { openCheckpoint } from "./checkpoint.ts";
import { readSafetensors } from "./safetensors.ts";
import { readFloats } from "./save-copy.ts";
import { copyOracle } from "./testing.ts";

type Type = "F32" | "F16" | "BF16";

/** Writes the weights of a folder again, each tensor in the type that `typeOf` gives it. */
async function retype(folder: string, typeOf: (name: string) => Type): Promise<void> {
  const file = join(folder, "model.safetensors");
  const { tensors } = await readSafetensors(file);
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  const parts: Uint8Array[] = [];
  let begin = 0;
  for (const { name, shape, read } of tensors.values()) {
    const bytes = inType(new Float32Array((await read()).buffer), typeOf(name));
    header[name] = { dtype: typeOf(name), shape, data_offsets: [begin, begin + bytes.length] };
    begin += bytes.length;
    parts.push(bytes);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(new BigUint64Array([BigInt(text.length)]).buffer);
  await writeFile(file, Buffer.concat([length, text, ...parts]));
}

function inType(values: Float32Array, type: Type): Uint8Array {
  if (type === "F32") return new Uint8Array(values.buffer);
  if (type === "F16") return new Uint8Array(new Float16Array(values).buffer);
  return new Uint8Array(Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16).buffer);
}

async function worstDifference(folder: string, original: string): Promise<number> {
  const [some, others] = await Promise.all(
    [folder, original].map(async (one) => Array.fromAsync((await openCheckpoint(one)).tensors(), readFloats)),
  );
  const worst = some!.map((values, i) => Math.max(...values.map((value, k) => Math.abs(value - others![i]![k]!))));
  return Math.max(...worst);
}

test("F16 weights open as f32, which holds them exactly, whatever config.json calls them", async () => {
  const folder = await copyOracle("llama", "policy");
  await retype(folder, () => "F16");
  for (const stated of ["float16", undefined]) {
    editJson(join(folder, "config.json"), (config) => {
      delete config.torch_dtype;
      config.dtype = stated;
    });
    const checkpoint = await openCheckpoint(folder);
    expect(checkpoint.dtype).toBe("f32");
    expect(await worstDifference(folder, oracle("llama", "policy"))).toBeLessThan(2e-3);
  }
});

test("weights of several types open, in f32 when one of them needs it", async () => {
  const folder = await copyOracle("qwen2", "policy");
  editJson(join(folder, "config.json"), (config) => {
    delete config.torch_dtype;
    delete config.dtype;
  });
  await retype(folder, (name) => (name.includes("norm") ? "F32" : name.includes("mlp") ? "F16" : "BF16"));
  expect((await openCheckpoint(folder)).dtype).toBe("f32");
  expect(await worstDifference(folder, oracle("qwen2", "policy"))).toBeLessThan(2e-2);
  await cp(oracle("qwen2", "policy", "model.safetensors"), join(folder, "model.safetensors"));
  await retype(folder, () => "BF16");
  expect((await openCheckpoint(folder)).dtype).toBe("bf16");
});

test("a folder opens with all that a download leaves in it, and names only what is the model's", async () => {
  const folder = await copyOracle("llama", "policy");
  for (const inner of [".cache/huggingface", ".git", "original", "onnx"]) {
    await mkdir(join(folder, inner), { recursive: true });
    await writeFile(join(folder, inner, "params.json"), "{}");
  }
  // An index beside a single file is of the shards that it was before.
  const others = ["README.md", "LICENSE.txt", "pytorch_model.bin", ".gitattributes", "llama-q4.gguf"];
  for (const name of [...others, "model.safetensors.index.json"]) {
    await writeFile(join(folder, name), "not looked at");
  }
  const { files } = await openCheckpoint(folder);
  expect(files.map((file) => basename(file)).sort()).toEqual([
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
});

test("a snapshot in the hub's cache, whose files are links to blobs, opens", async () => {
  const cache = await scratch();
  const snapshot = join(cache, "snapshots/0123");
  await mkdir(join(cache, "blobs"));
  await cp(oracle("llama", "policy"), snapshot, { recursive: true });
  for (const name of ["model.safetensors", "config.json", "tokenizer.json"]) {
    // The cache calls contents by their hashes.
    const blob = Buffer.from(name).toString("hex");
    await rename(join(snapshot, name), join(cache, "blobs", blob));
    await symlink(`../../blobs/${blob}`, join(snapshot, name));
  }
  expect(await worstDifference(snapshot, oracle("llama", "policy"))).toBe(0);
  await rm(join(cache, "blobs"), { recursive: true });
  await expect(openCheckpoint(snapshot)).rejects.toThrow(/config.json/);
});
