import { Engine } from "@tempora/engine";
import { newModelConfigJson, saveCheckpoint } from "@tempora/models";
import { byteEndId, byteTokenizerFiles, byteModelConfig as config } from "@tempora/testing/byte-tokenizer";

/** Writes a random model of bytes, which chats in ChatML. Returns its folder. */
export async function saveByteModel(folder: string): Promise<string> {
  using engine = await Engine.random(config, { device: "cpu", seed: 3, std: 0.3 });
  const files = byteTokenizerFiles();
  await saveCheckpoint(folder, {
    config,
    raw: newModelConfigJson(config, { eos: byteEndId }, "f32"),
    dtype: "f32",
    tensors: engine.tensors(),
    files: {
      "tokenizer.json": JSON.stringify(files.tokenizer),
      "tokenizer_config.json": JSON.stringify(files.config),
    },
  });
  return folder;
}
