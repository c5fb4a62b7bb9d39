/**
 * A checkpoint as older versions of transformers left it: bf16 weights in shards with an index, and a config.json with
 * `rope_theta`, `rope_scaling` and `torch_dtype` at its top. Written here from an f32 folder with code that shares nothing
 * with what the tests try.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Tensor {
  name: string;
  shape: number[];
  bytes: Buffer;
}

const shards = 3;

function readF32(file: string): Tensor[] {
  const whole = readFileSync(file);
  const headerEnd = 8 + Number(whole.readBigUInt64LE(0));
  const header = JSON.parse(whole.subarray(8, headerEnd).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [start, end],
        },
      ]) => {
        if (dtype !== "F32") throw new Error(`${file}: ${name} is ${dtype}, not F32`);
        return { name, shape, bytes: whole.subarray(headerEnd + start, headerEnd + end) };
      },
    );
}

/** To the nearest bf16, ties to even. The values must be finite. */
function toBf16(f32: Buffer): Buffer {
  const half = Buffer.alloc(f32.length / 2);
  for (let i = 0; i < half.length; i += 2) {
    const bits = f32.readUInt32LE(2 * i);
    half.writeUInt16LE((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16, i);
  }
  return half;
}

function writeShard(file: string, tensors: readonly Tensor[]): void {
  let end = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  for (const { name, shape, bytes } of tensors) {
    header[name] = { dtype: "BF16", shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, 0x20)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(file, Buffer.concat([length, padded, ...tensors.map(({ bytes }) => bytes)]));
}

function olderConfig(config: Record<string, unknown>): Record<string, unknown> {
  const { dtype: _, rope_parameters: rope, ...rest } = config;
  const { rope_theta, ...scaling } = rope as { rope_theta: number; rope_type: string };
  const rope_scaling = scaling.rope_type === "default" ? null : scaling;
  return { ...rest, rope_theta, rope_scaling, torch_dtype: "bfloat16" };
}

/** Writes `target` from the f32 checkpoint `source`; its tokenizer comes along. */
export function writeOlderCheckpoint(source: string, target: string): void {
  mkdirSync(target, { recursive: true });
  const tensors = readF32(join(source, "model.safetensors")).map(({ bytes, ...rest }) => ({
    ...rest,
    bytes: toBf16(bytes),
  }));
  const perShard = Math.ceil(tensors.length / shards);
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const name = `model-0000${shard + 1}-of-0000${shards}.safetensors`;
    const own = tensors.slice(shard * perShard, (shard + 1) * perShard);
    for (const tensor of own) weightMap[tensor.name] = name;
    writeShard(join(target, name), own);
  }
  const total = tensors.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const index = { metadata: { total_parameters: total / 2, total_size: total }, weight_map: weightMap };
  writeFileSync(join(target, "model.safetensors.index.json"), JSON.stringify(index, null, 2));
  const config = JSON.parse(readFileSync(join(source, "config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(target, "config.json"), JSON.stringify(olderConfig(config), null, 2));
  for (const name of ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
    cpSync(join(source, name), join(target, name));
  }
}
