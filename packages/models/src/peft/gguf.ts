import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { type AdapterSource, adapterModules, adapterTensors } from "@tempora/engine/adapter";
import type { ModelConfig } from "@tempora/engine/model";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { encodeAs } from "../gguf/encode.ts";
import { ggufName, permutedHeads } from "../gguf/names.ts";
import { permuteRows } from "../gguf/permutation.ts";
import { architectureOf } from "../gguf/save.ts";
import { createGguf, type GgufLayout, type MetadataValue } from "../gguf/writer.ts";
import { readFloats } from "../save-copy.ts";
import type { TensorFile } from "../tensor-file.ts";

/**
 * Writes an adapter as a GGUF file that llama.cpp takes with --lora; whole or not at all. llama.cpp scales by alpha / rank for
 * all modules together, so rsLoRA's √rank goes into alpha; ranks and alphas of single modules go into B.
 */
export async function saveGgufAdapter(adapter: AdapterSource, model: ModelConfig, file: string): Promise<void> {
  const modules = adapterModules(adapter.config, model);
  const { rank, alpha, rsLora } = adapter.config;
  const written = rsLora ? alpha * Math.sqrt(rank) : alpha;
  if (written === 0) {
    throw new TemporaError("An adapter with alpha 0 changes nothing, and llama.cpp would take it as 1", {
      where: { file: adapter.name, field: "alpha" },
      remedy: "Use the base alone.",
    });
  }
  const layout = adapterTensors(modules).map(
    ({ name, shape }): GgufLayout => ({ name: adapterName(name), type: "F32", shape }),
  );
  const text = (value: string): MetadataValue => ({ type: "string", value });
  const metadata: Record<string, MetadataValue> = {
    "general.architecture": text(architectureOf(model)),
    "general.type": text("adapter"),
    "adapter.type": text("lora"),
    "adapter.lora.alpha": { type: "f32", value: written },
  };
  // What llama.cpp will multiply a module of its rank by, against what it should.
  const factors = new Map(modules.map((module) => [module.name, module.scale / (written / module.rank)]));
  const partial = `${file}.partial`;
  let writer: TensorFile | null = null;
  try {
    await mkdir(dirname(file), { recursive: true });
    writer = await createGguf(partial, metadata, layout);
    for await (const tensor of adapter.tensors()) {
      const values = await valuesOf(tensor.name, await readFloats(tensor), factors, model);
      await writer.write(adapterName(tensor.name), encodeAs("F32", values, { file: tensor.file, field: tensor.name }));
    }
    await writer.close();
    await rename(partial, file);
  } catch (error) {
    await writer?.abandon();
    await rm(partial, { force: true });
    throw systemErrorCode(error) === undefined ? error : fileError(error, "Cannot write the adapter", file);
  }
}

function parse(name: string): { module: string; side: "A" | "B" } {
  const [, module, side] = /^(.+)\.lora_([AB])\.weight$/.exec(name) ?? [];
  if (module === undefined) throw new Error(`${name} is no tensor of an adapter`);
  return { module, side: side as "A" | "B" };
}

/** blk.N.attn_q.weight.lora_a, as convert_lora_to_gguf.py names them. */
function adapterName(name: string): string {
  const { module, side } = parse(name);
  return `${ggufName(`${module}.weight`)}.lora_${side.toLowerCase()}`;
}

/** B's rows are the outputs of the base's matrix: permuted where those are. */
async function valuesOf(
  name: string,
  values: Float32Array,
  factors: ReadonlyMap<string, number>,
  model: ModelConfig,
): Promise<Float32Array> {
  const { module, side } = parse(name);
  if (side === "A") return values;
  const factor = factors.get(module) ?? 1;
  const scaled = Math.abs(factor - 1) < 1e-12 ? values : values.map((value) => value * factor);
  const which = architectureOf(model) === "llama" ? permutedHeads(`${module}.weight`) : null;
  if (which === null) return scaled;
  const bytes = new Uint8Array(scaled.buffer, scaled.byteOffset, scaled.byteLength);
  return new Float32Array(permuteRows(bytes, { heads: model[which], headDim: model.headDim, to: "gguf" }).buffer);
}
