import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { editJson, oracle } from "@tempora/testing";

interface Tensor {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A copy of a small checkpoint to damage. */
export function copyModel(target: string, family = "llama"): string {
  cpSync(oracle(family, "policy"), target, { recursive: true });
  return target;
}

/** Rewrites the header of model.safetensors and its bytes: in place, or by returning others. */
export function editWeights(
  folder: string,
  change: (header: Record<string, Tensor>, bytes: Buffer) => Buffer | undefined,
): void {
  const file = join(folder, "model.safetensors");
  const whole = readFileSync(file);
  const length = Number(whole.readBigUInt64LE(0));
  const header = JSON.parse(whole.subarray(8, 8 + length).toString()) as Record<string, Tensor>;
  const bytes = Buffer.from(whole.subarray(8 + length));
  const changed = change(header, bytes) ?? bytes;
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, 0x20)]);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(file, Buffer.concat([size, padded, changed]));
}

/** Takes a tensor out, bytes and all: what is left is a sound file. */
export function removeTensor(folder: string, name: string): void {
  const kept: Buffer[] = [];
  editWeights(folder, (header, bytes) => {
    delete header[name];
    let end = 0;
    for (const [key, tensor] of Object.entries(header)) {
      if (key === "__metadata__") continue;
      const part = Buffer.from(bytes.subarray(...tensor.data_offsets));
      tensor.data_offsets = [end, end + part.length];
      end += part.length;
      kept.push(part);
    }
    return Buffer.concat(kept);
  });
}

export function truncateWeights(folder: string, bytes: number): void {
  const file = join(folder, "model.safetensors");
  truncateSync(file, readFileSync(file).length - bytes);
}

/** A tokenizer that knows no conversations. */
export function removeChatTemplate(folder: string): void {
  rmSync(join(folder, "chat_template.jinja"), { force: true });
  editJson(join(folder, "tokenizer_config.json"), (config) => {
    delete config.chat_template;
  });
}
