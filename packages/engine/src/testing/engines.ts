import type { PreferencePair } from "../check.ts";
import { Engine } from "../engine.ts";
import { type Forest, ForestBuilder } from "../forest.ts";
import type { Completion } from "../generate.ts";
import type { ModelConfig, ModelSource, TensorSource } from "../model.ts";
import { someIds } from "./models.ts";

export const sigmoid = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: 0.1 };

export function random(config: ModelConfig, seed = 1): Promise<Engine> {
  return Engine.random(config, { device: "cpu", seed, std: 0.3 });
}

/** Two trees: depth 4, single-token nodes, siblings that share a last token, a scored root, nodes that are only context. */
export function bush(vocabSize: number): Forest {
  const builder = new ForestBuilder();
  const ids = (count: number, seed: number) => someIds(count, vocabSize, seed);
  const root = builder.add(ids(7, 1));
  const left = builder.add(ids(1, 2), root);
  const right = builder.add(ids(6, 3), root);
  builder.add(ids(1, 4), left);
  const deep = builder.add(ids(4, 5), left, false);
  builder.add(ids(3, 6), deep);
  builder.add(ids(1, 7), deep);
  builder.add(ids(8, 8), right);
  const second = builder.add(ids(5, 9), -1, true);
  builder.add(ids(2, 10), second);
  return builder.build();
}

export function path(forest: Forest, leaf: number): number[] {
  const nodes: number[] = [];
  for (let node = leaf; node >= 0; node = forest.nodeParent[node] as number) nodes.unshift(node);
  return nodes;
}

/** A node's path as a forest of its own, with only that node scored. */
export function alone(forest: Forest, leaf: number): Forest {
  const builder = new ForestBuilder();
  let parent = -1;
  for (const node of path(forest, leaf)) {
    const tokens = forest.tokens.subarray(forest.nodeStart[node], forest.nodeStart[node + 1]);
    parent = builder.add(tokens, parent, node === leaf);
  }
  return builder.build();
}

export async function gradients(engine: Engine): Promise<Float32Array[]> {
  return Promise.all(engine.parameters.map(({ name }) => engine.getGradient(name)));
}

export async function weights(engine: Engine): Promise<Buffer> {
  return Buffer.concat(await Promise.all(engine.parameters.map(({ name }) => engine.getParameter(name))));
}

/** An engine's weights as they are now, as a model to load. */
export async function modelOf(engine: Engine): Promise<ModelSource> {
  const sources: TensorSource[] = [];
  for await (const tensor of engine.tensors()) {
    sources.push({ ...tensor, file: "memory", read: () => Promise.resolve(tensor.bytes) });
  }
  return { config: engine.config, name: "memory", dtype: engine.dtype, tensors: () => sources };
}

export function withValues(tensor: TensorSource, values: Float32Array): TensorSource {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { ...tensor, dtype: "f32", read: () => Promise.resolve(bytes) };
}

export async function collect(completions: AsyncIterable<Completion>): Promise<Completion[]> {
  const all: Completion[] = [];
  for await (const completion of completions) all.push(completion);
  return all.sort((a, b) => a.prompt - b.prompt || a.sample - b.sample);
}

export function pairForest(
  config: ModelConfig,
  count: number,
  length: number,
): { forest: Forest; pairs: PreferencePair[] } {
  const builder = new ForestBuilder();
  const pairs = Array.from({ length: count }, (_, i) => {
    const prompt = builder.share(someIds(length, config.vocabSize, i));
    return {
      chosen: builder.add(someIds(length, config.vocabSize, 100 + i), prompt),
      rejected: builder.add(someIds(length, config.vocabSize, 200 + i), prompt),
      referenceChosen: -3 * length,
      referenceRejected: -3.1 * length,
    };
  });
  return { forest: builder.build(), pairs };
}
