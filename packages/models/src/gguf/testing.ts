import { join } from "node:path";
import { oracle, scratch } from "@tempora/testing";
import { openCheckpoint } from "../checkpoint.ts";
import { encodeAs } from "./encode.ts";
import { type GgufType, saveGguf } from "./save.ts";
import { createGguf, type GgufLayout, layoutBytes, type MetadataValue } from "./writer.ts";

/** An oracle checkpoint as a GGUF file in a fresh folder. */
export async function oracleGguf(family: string, type: GgufType): Promise<string> {
  const file = join(await scratch(), `${family}.gguf`);
  await saveGguf(await openCheckpoint(oracle(family, "policy")), file, { type, name: family });
  return file;
}

/** The metadata of a llama of one layer, with a byte-level tokenizer of four tokens. */
export function tinyMetadata(): Record<string, MetadataValue> {
  const u32 = (value: number): MetadataValue => ({ type: "u32", value });
  return {
    "general.architecture": { type: "string", value: "llama" },
    "llama.block_count": u32(1),
    "llama.context_length": u32(64),
    "llama.embedding_length": u32(32),
    "llama.feed_forward_length": u32(64),
    "llama.attention.head_count": u32(4),
    "llama.attention.head_count_kv": u32(2),
    "llama.attention.layer_norm_rms_epsilon": { type: "f32", value: 1e-5 },
    "tokenizer.ggml.model": { type: "string", value: "gpt2" },
    "tokenizer.ggml.pre": { type: "string", value: "gpt-2" },
    "tokenizer.ggml.tokens": { type: "strings", value: ["a", "b", "ab", "<end>"] },
    "tokenizer.ggml.token_type": { type: "i32s", value: [1, 1, 1, 3] },
    "tokenizer.ggml.merges": { type: "strings", value: ["a b"] },
    "tokenizer.ggml.eos_token_id": u32(3),
  };
}

/** Its tensors. */
export const tinyLayout: readonly GgufLayout[] = [
  tensor("token_embd.weight", 4, 32),
  tensor("blk.0.attn_norm.weight", 32),
  tensor("blk.0.attn_q.weight", 32, 32),
  tensor("blk.0.attn_k.weight", 16, 32),
  tensor("blk.0.attn_v.weight", 16, 32),
  tensor("blk.0.attn_output.weight", 32, 32),
  tensor("blk.0.ffn_norm.weight", 32),
  tensor("blk.0.ffn_gate.weight", 64, 32),
  tensor("blk.0.ffn_up.weight", 64, 32),
  tensor("blk.0.ffn_down.weight", 32, 64),
  tensor("output_norm.weight", 32),
];

export function tensor(name: string, ...shape: number[]): GgufLayout {
  return { name, type: "F32", shape };
}

/** Writes a GGUF file whose tensors count up from 0. */
export async function writeTiny(
  file: string,
  metadata: Record<string, MetadataValue> = tinyMetadata(),
  layout: readonly GgufLayout[] = tinyLayout,
): Promise<void> {
  const writer = await createGguf(file, metadata, layout);
  for (const one of layout) {
    const values = Float32Array.from({ length: layoutBytes(one) / 4 }, (_, i) => i);
    await writer.write(one.name, encodeAs("F32", values, { file, field: one.name }));
  }
  await writer.close();
}
