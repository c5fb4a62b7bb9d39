import { TemporaError } from "@tempora/errors";
import {
  type AdapterConfig,
  type AdapterModule,
  type AdapterSource,
  adapterModules,
  adapterTensors,
} from "./adapter-config.ts";
import type { NativeEngine, NativeForest } from "./addon.ts";
import { checkNumber } from "./check.ts";
import type { TensorBytes } from "./engine-types.ts";
import { type Forest, rootCount } from "./forest.ts";
import { collectTensors, loadParameters } from "./loading.ts";
import type { ModelConfig, ModelSource, ParameterShape } from "./model.ts";
import { cancellable } from "./native.ts";
import { uniforms } from "./random-weights.ts";

/** What the adapters need of their engine. */
export interface AdapterHost {
  readonly config: ModelConfig;
  readonly native: NativeEngine;
  /** Runs an operation of several native calls with no other call in between. */
  alone<T>(operation: () => Promise<T>): Promise<T>;
  /** What generations compute with has changed: those that run end. */
  changed(): void;
}

interface Held {
  readonly id: number;
  readonly config: AdapterConfig;
  readonly modules: readonly AdapterModule[];
  readonly parameters: readonly ParameterShape[];
}

const base = -1;

/**
 * The LoRA adapters of an engine, by name, all over one base. One of them may be active: it is trained instead of the base,
 * which is frozen then, and forests that name no adapters go through it. A forest may send each of its trees through
 * another (Forest.rootAdapters), in scoring, training and generation. A and B are float32, whatever the base is.
 */
export class Adapters {
  readonly #host: AdapterHost;
  readonly #held = new Map<string, Held>();
  #active: string | null = null;

  constructor(host: AdapterHost) {
    this.#host = host;
  }

  get names(): string[] {
    return [...this.#held.keys()];
  }

  /** The adapter that is trained; null for the base. */
  get active(): string | null {
    return this.#active;
  }

  config(name: string): AdapterConfig {
    return this.#get(name).config;
  }

  /** The tensors of an adapter: A and B of each module. */
  parameters(name: string): readonly ParameterShape[] {
    return this.#get(name).parameters;
  }

  /** A new adapter, which changes nothing yet: A kaiming uniform (a = √5) by the seed, B zero, as PEFT begins. */
  async add(name: string, config: AdapterConfig, options: { seed?: number | undefined } = {}): Promise<void> {
    const seed = checkNumber(options.seed ?? 0, "seed", { least: 0, integer: true });
    const modules = adapterModules(config, this.#host.config);
    await this.load(name, { config, name: "a new adapter", tensors: () => freshTensors(modules, seed) }, { seed });
  }

  /**
   * Loads an adapter whole: every tensor there, finite and of its shape, or a TemporaError that names the file and the
   * tensor. `seed` is that of its dropout.
   */
  load(name: string, source: AdapterSource, options: { seed?: number | undefined } = {}): Promise<void> {
    return this.#host.alone(async () => {
      this.#checkNew(name);
      const { native, config: model } = this.#host;
      const modules = adapterModules(source.config, model);
      const parameters = adapterTensors(modules);
      const tensors = await this.#collect(source, parameters);
      const spec = {
        parameters: Int32Array.from(modules, ({ parameter }) => parameter),
        ranks: Int32Array.from(modules, ({ rank }) => rank),
        scales: Float32Array.from(modules, ({ scale }) => scale),
        dropout: source.config.dropout ?? 0,
        seed: checkNumber(options.seed ?? 0, "seed", { least: 0, integer: true }),
      };
      const id = await cancellable(undefined, () => native.addAdapter(spec));
      try {
        await loadParameters(native, tensors, { adapter: id });
      } catch (error) {
        await native.removeAdapter(id);
        throw error;
      }
      this.#held.set(name, { id, config: source.config, modules, parameters });
    });
  }

  /** Replaces an adapter's tensors by those of another of the same modules. Its config and its optimizer's state stay. */
  replace(name: string, source: Pick<AdapterSource, "name" | "tensors">): Promise<void> {
    return this.#host.alone(async () => {
      const { id, parameters } = this.#get(name);
      const tensors = await this.#collect(source, parameters);
      this.#host.changed();
      await loadParameters(this.#host.native, tensors, { adapter: id });
    });
  }

  /** The adapter as it is when its tensors are read: what load() takes, here or in another engine, and what a file is written from. */
  save(name: string): AdapterSource {
    const { config, parameters } = this.#get(name);
    const read = (index: number) => this.#tensor(name, index);
    return {
      config,
      name,
      *tensors() {
        for (const [index, { name: tensor, shape }] of parameters.entries()) {
          yield { name: tensor, dtype: "f32" as const, shape, file: name, read: () => read(index) };
        }
      },
    };
  }

  /** Every tensor in turn, float32. */
  async *tensors(name: string): AsyncGenerator<TensorBytes, void, undefined> {
    for (const [index, { name: tensor, shape }] of this.#get(name).parameters.entries()) {
      yield { name: tensor, dtype: "f32", shape, bytes: await this.#tensor(name, index) };
    }
  }

  /** Trains this adapter from now on, or the base again with null. Gradients and optimizer states of each are kept apart. */
  activate(name: string | null): Promise<void> {
    return this.#host.alone(async () => {
      const id = name === null ? base : this.#get(name).id;
      await cancellable(undefined, () => this.#host.native.activateAdapter(id));
      this.#active = name;
    });
  }

  /** Forgets an adapter and what its training needed. The base becomes active where it was. */
  remove(name: string): Promise<void> {
    return this.#host.alone(async () => {
      const { id } = this.#get(name);
      this.#host.changed();
      await cancellable(undefined, () => this.#host.native.removeAdapter(id));
      this.#held.delete(name);
      if (this.#active === name) this.#active = null;
    });
  }

  /**
   * Adds the adapter to the base's weights, rounded once, until unmerge() puts the base's own back, bit for bit. One at a
   * time and not the active one; trees cannot go through it meanwhile. Weights that are changed otherwise make it final.
   */
  merge(name: string): Promise<void> {
    return this.#change(name, (id) => this.#host.native.mergeAdapter(id));
  }

  unmerge(name: string): Promise<void> {
    return this.#change(name, (id) => this.#host.native.unmergeAdapter(id));
  }

  /** @internal The number of an adapter, or of the base for null; of the active one where none is named. */
  idOf(name: string | null | undefined): number {
    const wanted = name === undefined ? this.#active : name;
    return wanted === null ? base : this.#get(wanted).id;
  }

  /** @internal The forest as C++ takes it: adapters by number. */
  native(forest: Forest): NativeForest {
    const { tokens, nodeStart, nodeParent, nodeScored, rootAdapters } = forest;
    const named = rootAdapters ?? [];
    const roots = rootCount(forest);
    if (rootAdapters !== undefined && named.length !== roots) {
      throw new TemporaError(`The forest names ${named.length} adapters for ${roots} trees`, {
        where: { field: "rootAdapters" },
        remedy: "Build forests by ForestBuilder.",
      });
    }
    const rootAdapter = Int32Array.from(named, (name) => this.idOf(name));
    return { tokens, nodeStart, nodeParent, nodeScored, rootAdapter };
  }

  /** @internal Where a tensor of the active adapter lies. */
  activeTensor(tensor: string): { index: number; adapter: number } | undefined {
    if (this.#active === null) return undefined;
    const { id, parameters } = this.#get(this.#active);
    const index = parameters.findIndex(({ name }) => name === tensor);
    return index < 0 ? undefined : { index, adapter: id };
  }

  #collect(source: Pick<AdapterSource, "name" | "tensors">, parameters: readonly ParameterShape[]) {
    const { config } = this.#host;
    const { name, tensors } = source;
    return collectTensors({ name, tensors: () => tensors(), config, dtype: "f32" } satisfies ModelSource, parameters);
  }

  #tensor(name: string, index: number): Promise<Uint8Array> {
    const { id } = this.#get(name);
    // Not alone: an adapter may be loaded from another of the same engine.
    return cancellable(undefined, () => this.#host.native.getParameter(index, id));
  }

  #change(name: string, call: (id: number) => Promise<void>): Promise<void> {
    return this.#host.alone(async () => {
      const { id } = this.#get(name);
      this.#host.changed();
      await cancellable(undefined, () => call(id));
    });
  }

  #checkNew(name: string): void {
    if (!this.#held.has(name)) return;
    throw new TemporaError(`There is an adapter "${String(name)}" already`, {
      remedy: "Remove it first, or choose another name.",
    });
  }

  #get(name: string): Held {
    const found = this.#held.get(name);
    if (found !== undefined) return found;
    const known = this.names.length === 0 ? "none" : this.names.join(", ");
    throw new TemporaError(`There is no adapter "${String(name)}"`, {
      remedy: `Add or load it first; the engine has ${known}.`,
    });
  }
}

function* freshTensors(modules: readonly AdapterModule[], seed: number) {
  for (const [index, { name, shape }] of adapterTensors(modules).entries()) {
    const count = (shape[0] as number) * (shape[1] as number);
    const isA = index % 2 === 0;
    // √(6 / ((1 + a²) · inputs)) with a = √5.
    const bound = 1 / Math.sqrt(shape[1] as number);
    const read = async () => {
      const values = isA ? await uniforms(count, bound, seed, index) : new Float32Array(count);
      return new Uint8Array(values.buffer);
    };
    yield { name, dtype: "f32" as const, shape, file: "a new adapter", read };
  }
}
