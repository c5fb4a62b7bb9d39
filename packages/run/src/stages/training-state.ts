import { existsSync } from "node:fs";
import { readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  type DType,
  type Engine,
  giveBack,
  type ModelSource,
  momentScales,
  type ParameterMoments,
  type TensorSource,
} from "@tempora/engine";
import { fileError, type Place, systemErrorCode, TemporaError } from "@tempora/errors";
import { type NamedTensor, readSafetensors, type SafetensorsFile, SafetensorsWriter } from "@tempora/models";
import { writeWhole } from "@tempora/text";
import type { Metrics, TrainingProgress } from "@tempora/training";
import type { LedgerTotals } from "../results/results.ts";
import { RowLog } from "../store/row-log.ts";
import { changedRemedy, sealed, sha256, unsealed } from "../store/sealed.ts";

interface Saved {
  progress: TrainingProgress;
  totals: LedgerTotals;
  optimizerSteps: number;
  weights: string;
  /** SHA-256 of each tensor in it. */
  hashes: Record<string, string>;
}

const savedWeights = /^state-\d+\.safetensors(\.partial)?$|^state\.json\.partial$/;
/** Names of a parameter's moments, and of their scales where they are in 8 bits, by what is put before its own. */
const kinds = {
  first: "first:",
  second: "second:",
  firstScales: "first_scales:",
  secondScales: "second_scales:",
} as const;

/**
 * A training's state in its stage folder: the trained weights, AdamW's moments, progress, and the log of its metrics. A killed training
 * that goes on from it gives the bytes of one that was never interrupted. state.json is renamed into place last and names
 * the weights it belongs to.
 */
export class TrainingState implements AsyncDisposable {
  readonly #file: string;
  #saved: Saved | null;
  #savedAt = performance.now();

  private constructor(
    readonly folder: string,
    readonly everySeconds: number,
    readonly log: RowLog<Metrics>,
    private readonly note: (text: string) => void,
    /** Metrics of the steps that the saved state has behind it. */
    readonly metrics: readonly Metrics[],
    saved: Saved | null,
  ) {
    this.#file = join(folder, "state.json");
    this.#saved = saved;
  }

  /** What an attempt that was killed while it saved has left goes away. `note` is told when a state cannot be saved. */
  static async open(folder: string, everySeconds: number, note: (text: string) => void): Promise<TrainingState> {
    const saved = await readState(join(folder, "state.json"));
    await removeWeights(folder, saved?.weights ?? null);
    const earlier: Metrics[] = [];
    const log = await RowLog.open<Metrics>(folder, "metrics", {
      place: ({ step }) => step,
      onEarlier: (row) => {
        if (saved !== null && row.step <= saved.progress.step) earlier.push(row);
      },
    });
    // Steps whose metrics were lost, as by a power cut, are done again.
    if (saved === null || earlier.length < saved.progress.step)
      return new TrainingState(folder, everySeconds, log, note, [], null);
    return new TrainingState(folder, everySeconds, log, note, earlier, saved);
  }

  /** What the training starts from: the saved state, or nothing. */
  resume(engine: Engine): { progress: TrainingProgress; restore(): Promise<void> } | undefined {
    const saved = this.#saved;
    if (saved === null) return undefined;
    return { progress: saved.progress, restore: () => this.#restore(engine, saved) };
  }

  /** Compute that earlier processes spent on the steps that are not done again. */
  get totals(): LedgerTotals | null {
    return this.#saved?.totals ?? null;
  }

  /** Saves when enough time has passed since the last time. A state that the disk has no room for is not worth the training. */
  async afterStep(engine: Engine, progress: TrainingProgress, totals: LedgerTotals): Promise<void> {
    if ((performance.now() - this.#savedAt) / 1000 < this.everySeconds) return;
    await this.log.flush();
    const { optimizerSteps } = engine;
    const weights = `state-${progress.step}.safetensors`;
    try {
      await this.#save(engine, { progress: { ...progress }, totals: { ...totals }, optimizerSteps, weights });
    } catch (error) {
      if (!(error instanceof TemporaError) || systemErrorCode(error.cause) === undefined) throw error;
      const earlier = this.#saved === null ? "its beginning" : `step ${this.#saved.progress.step}`;
      this.note(`${error.message} The training goes on; killed, it would start again from ${earlier}.`);
      await removeWeights(this.folder, this.#saved?.weights ?? null).catch(() => undefined);
    }
    this.#savedAt = performance.now();
  }

  /** A stage's training is done, and its result counts: the state goes. */
  static async remove(folder: string): Promise<void> {
    await rm(join(folder, "state.json"), { force: true });
    await removeWeights(folder, null);
  }

  /** What the log was told is kept, also when the training was stopped. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.log.close();
  }

  async #save(engine: Engine, state: Omit<Saved, "hashes">): Promise<void> {
    const hashes = await writeState(join(this.folder, state.weights), engine);
    const saved = { ...state, hashes };
    await writeWhole(this.#file, sealed(saved));
    this.#saved = saved;
    await removeWeights(this.folder, state.weights);
  }

  async #restore(engine: Engine, saved: Saved): Promise<void> {
    const file = checkedTensors(await readSafetensors(join(this.folder, saved.weights)), saved.hashes);
    const { active } = engine.adapters;
    if (active === null) await engine.setParameters(sourceOf(engine, file));
    else await engine.adapters.replace(active, sourceOf(engine, file));
    await engine.setOptimizerState(saved.optimizerSteps, savedMoments(engine, file));
  }
}

/** Removes the saved weights, whole or not, except those that a state names. */
async function removeWeights(folder: string, except: string | null): Promise<void> {
  try {
    for (const name of await readdir(folder)) {
      if (savedWeights.test(name) && name !== except) await rm(join(folder, name), { force: true });
    }
  } catch (error) {
    throw fileError(error, "Cannot remove the training's state", folder);
  }
}

async function readState(file: string): Promise<Saved | null> {
  if (!existsSync(file)) return null;
  try {
    return unsealed(await readFile(file, "utf8")) as Saved;
  } catch (error) {
    if (systemErrorCode(error) !== undefined) throw fileError(error, "Cannot read the training's state", file);
    throw changed({ file }, error);
  }
}

/** Returns the hashes of the tensors. */
async function writeState(file: string, engine: Engine): Promise<Record<string, string>> {
  const partial = `${file}.partial`;
  const { active } = engine.adapters;
  const layout = engine.trainable.flatMap(({ name, shape }) => [
    { name, shape, dtype: trainedDType(engine) },
    ...momentsLayout(engine, { name, shape }),
  ]);
  const writer = await SafetensorsWriter.create(partial, layout);
  const hashes: Record<string, string> = {};
  const write = async (tensor: NamedTensor) => {
    hashes[tensor.name] = sha256(tensor.bytes);
    await writer.write(tensor);
    giveBack(tensor.bytes);
  };
  try {
    const tensors = active === null ? engine.tensors() : engine.adapters.tensors(active);
    for await (const tensor of tensors) await write(tensor);
    const shapes = new Map(engine.trainable.map((parameter) => [parameter.name, parameter]));
    for await (const moments of engine.moments()) {
      const parameter = shapes.get(moments.name);
      for (const { kind, ...layout } of parameter === undefined ? [] : momentsLayout(engine, parameter)) {
        await write({ ...layout, bytes: bytesOf(moments[kind] ?? new Float32Array(0)) });
      }
    }
    await writer.close();
    await rename(partial, file);
    return hashes;
  } catch (error) {
    await writer.abandon();
    throw systemErrorCode(error) === undefined ? error : fileError(error, "Cannot write the training's state", file);
  }
}

function changed(where: Place, cause?: unknown): TemporaError {
  return new TemporaError("The training's state is not what was saved", { where, remedy: changedRemedy, cause });
}

/** The file's tensors; reading one whose bytes are not those that were saved is an error. */
function checkedTensors(file: SafetensorsFile, hashes: Readonly<Record<string, string>>): SafetensorsFile {
  const tensors = [...file.tensors].map(([name, tensor]) => {
    const read = async () => {
      const bytes = await tensor.read();
      if (sha256(bytes) === hashes[name]) return bytes;
      throw changed({ file: file.file, field: name });
    };
    return [name, { ...tensor, read }] as const;
  });
  return { ...file, tensors: new Map(tensors) };
}

/** Of the tensors that keep a parameter's moments. */
function momentsLayout({ momentsFormat }: Engine, { name, shape }: { name: string; shape: readonly number[] }) {
  const scales = momentScales(
    shape.reduce((product, size) => product * size, 1),
    momentsFormat,
  );
  const all = [
    { kind: "first", shape },
    { kind: "second", shape },
    ...(scales === 0
      ? []
      : ([
          { kind: "firstScales", shape: [scales] },
          { kind: "secondScales", shape: [scales] },
        ] as const)),
  ] as const;
  return all.map((one) => ({ ...one, name: `${kinds[one.kind]}${name}`, dtype: "f32" as const }));
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** One parameter's after the other, so that all of them are never in memory together. */
async function* savedMoments(engine: Engine, file: SafetensorsFile): AsyncGenerator<ParameterMoments, void, undefined> {
  for (const parameter of engine.trainable) {
    const { name } = parameter;
    const own: ParameterMoments = { name, first: new Float32Array(0), second: new Float32Array(0) };
    for (const { kind, name: tensor } of momentsLayout(engine, parameter)) own[kind] = await moments(file, tensor);
    yield own;
  }
}

async function moments(file: SafetensorsFile, name: string): Promise<Float32Array> {
  const bytes = await tensorOf(file, name).read();
  // A copy, since the bytes need not lie at a multiple of four.
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

function tensorOf(file: SafetensorsFile, name: string) {
  const tensor = file.tensors.get(name);
  if (tensor !== undefined) return tensor;
  throw new TemporaError(`The training's state lacks ${name}`, {
    where: { file: file.file, field: name },
    remedy: "Delete the stage's folder: the training starts again from its beginning.",
  });
}

/** An adapter is in f32, whatever its base is. */
function trainedDType(engine: Engine): DType {
  return engine.adapters.active === null ? engine.dtype : "f32";
}

function sourceOf(engine: Engine, file: SafetensorsFile): ModelSource {
  const dtype = trainedDType(engine);
  return {
    config: engine.config,
    name: file.file,
    dtype,
    tensors: (): TensorSource[] =>
      engine.trainable.map(({ name, shape }) => {
        const tensor = tensorOf(file, name);
        return { name, dtype, shape, file: file.file, read: () => tensor.read() };
      }),
  };
}
