import { Engine, type ModelConfig } from "@tempora/engine";
import { newModelConfigJson, saveCheckpoint } from "@tempora/models";
import { byteEndId, byteTokenizerFiles } from "@tempora/testing/byte-tokenizer";

const config: ModelConfig = {
  family: "llama",
  vocabSize: 260,
  hiddenSize: 32,
  intermediateSize: 48,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  normEps: 1e-5,
  tiedHead: false,
  qkvBias: false,
  outputBias: false,
  qkNorm: false,
  windows: [0, 0],
  ropeTheta: 10_000,
  ropeScaling: null,
  maxPositions: 512,
};

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
