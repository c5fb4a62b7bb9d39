import { TemporaError } from "@tempora/errors";
import { Adapters } from "./adapters.ts";
import type { NativeBatchOptions, NativeEngine } from "./addon.ts";
import {
  checkCoefficients,
  checkConfig,
  checkForest,
  checkLoss,
  checkMomentsFormat,
  checkNode,
  checkNumber,
  checkPairs,
  checkTotals,
  completionLength,
  type PreferencePair,
  scoredTokens,
} from "./check.ts";
import { chooseDevice } from "./device.ts";
import type {
  CallOptions,
  EngineMemory,
  EngineOptions,
  LoadOptions,
  LogProbOptions,
  LogProbs,
  MomentsFormat,
  OptimizerStepOptions,
  ParameterMoments,
  PreferenceStepOptions,
  PreferenceStepResult,
  SupervisedStepResult,
  TensorBytes,
  TrainingCallOptions,
} from "./engine-types.ts";
import { type Forest, nodeCount } from "./forest.ts";
import {
  type Completion,
  CompletionCollector,
  type GenerationLeaf,
  type GenerationOptions,
  type GenerationPrompt,
  generationRequest,
  promptForest,
} from "./generate.ts";
import { type BatchOptions, GenerationBatch, weightsChanged } from "./generation-batch.ts";
import { type HeldFormats, loadMoments, loadParameters, modelTensors, sameModelTensors } from "./loading.ts";
import type { PreferenceLoss } from "./losses.ts";
import {
  type DType,
  type ModelConfig,
  type ModelSource,
  type ParameterShape,
  parameterShapes,
  rotaryFrequencies,
} from "./model.ts";
import { abortError, addon, cancellable } from "./native.ts";
import { optimizerOptions } from "./optimizer-options.ts";
import { nativeLoss } from "./preference-loss.ts";
import { randomModel } from "./random-weights.ts";
import { Snapshot } from "./snapshot.ts";

/**
 * One model on one device. Calls run on another thread, one at a time and in the order they were made. What a call throws
 * is a TemporaError, or an AbortError when its signal stopped it.
 */
export class Engine implements Disposable {
  readonly config: ModelConfig;
  readonly dtype: DType;
  readonly device: "cpu" | "cuda";
  readonly deviceName: string;
  /** Every parameter by its Hugging Face name, in the order of their numbers. */
  readonly parameters: readonly ParameterShape[];
  /** How AdamW's moments are stored. */
  readonly momentsFormat: MomentsFormat;
  /** LoRA adapters over this model's weights. */
  readonly adapters: Adapters;
  readonly #native: NativeEngine;
  readonly #held: HeldFormats;
  readonly #index: ReadonlyMap<string, number>;
  #disposed = false;
  /** Counts the calls that change weights: a running generation cannot go on after one. */
  #weightChanges = 0;
  /** Ends with the last multi-part operation; calls made after it wait for that. */
  #exclusive: Promise<void> | null = null;

  private constructor(config: ModelConfig, dtype: DType, options: EngineOptions, kept: HeldFormats["kept"]) {
    const { device, name } = chooseDevice(options.device);
    const threads = checkNumber(options.threads ?? 0, "threads", { least: 0, most: 4096, integer: true });
    this.config = config;
    this.dtype = dtype;
    this.device = device;
    this.deviceName = name;
    this.momentsFormat = checkMomentsFormat(options.moments ?? "f32");
    this.#held = { quantized: options.quantize === "nf4" ? "nf4" : null, kept };
    this.parameters = parameterShapes(config);
    this.#index = new Map(this.parameters.map((parameter, index) => [parameter.name, index]));
    this.#native = new (addon().Engine)(
      { ...config, windows: Int32Array.from(config.windows), rotaryFrequencies: rotaryFrequencies(config) },
      { device, dtype, threads, moments: this.momentsFormat, ...this.#held },
    );
    this.adapters = new Adapters({
      config,
      native: this.#native,
      alone: (operation) => this.#alone(operation),
      changed: () => {
        this.#weightChanges++;
      },
    });
  }

  /**
   * Loads a model whole: every tensor there, finite and of its shape, or a TemporaError that names the file and the tensor.
   */
  static async load(model: ModelSource, options: LoadOptions = {}): Promise<Engine> {
    if (options.signal?.aborted) throw abortError(options.signal);
    const { tensors, kept } = await modelTensors(model, options.quantize);
    const engine = new Engine(model.config, options.dtype ?? model.dtype, options, kept);
    try {
      await cancellable(undefined, () => engine.#native.ready());
      await loadParameters(engine.#native, tensors, { ...options, held: engine.#held });
    } catch (error) {
      engine.dispose();
      throw error;
    }
    return engine;
  }

  /** A model before any training: matrices normal(0, std), norms 1, biases 0; the same for the same seed. Default f32. */
  static random(config: ModelConfig, options: EngineOptions & { seed?: number; std?: number } = {}): Promise<Engine> {
    const seed = checkNumber(options.seed ?? 0, "seed", { least: 0, integer: true });
    const std = checkNumber(options.std ?? 0.02, "std", { least: 0 });
    checkConfig(config);
    return Engine.load(randomModel(config, options.dtype ?? "f32", seed, std), options);
  }

  /** Log-probs of the scored nodes' tokens, and of the most likely ones [T × top] in their places. Changes nothing. */
  async logProbs(forest: Forest, options: LogProbOptions = {}): Promise<LogProbs> {
    await this.#turn();
    checkForest(forest, this.config);
    const top = checkNumber(options.top ?? 0, "top", { least: 0, most: this.config.vocabSize, integer: true });
    const native = this.adapters.native(forest);
    const result = await cancellable(options.signal, (cancel) => this.#native.logProbs(native, top, cancel));
    const likely = { ids: result.topIds, logProbs: result.topLogProbs };
    return { token: result.tokenLogProbs, node: result.nodeLogProbs, ...(top === 0 ? {} : { top: likely }) };
  }

  /**
   * Adds the gradient of a preference loss over pairs of completions: chosen and rejected name the last node of each; their
   * tokens are the scored nodes on its path.
   */
  async preferenceStep(
    forest: Forest,
    pairs: readonly PreferencePair[],
    loss: PreferenceLoss,
    options: PreferenceStepOptions = {},
  ): Promise<PreferenceStepResult> {
    await this.#turn();
    checkForest(forest, this.config);
    checkPairs(pairs, forest);
    checkLoss(loss);
    const totalPairs = options.totalPairs ?? pairs.length;
    const totalChosenTokens =
      options.totalChosenTokens ?? pairs.reduce((sum, pair) => sum + completionLength(forest, pair.chosen), 0);
    checkTotals(loss, pairs.length, totalPairs, totalChosenTokens);
    const step = {
      forest: this.adapters.native(forest),
      pairs: Int32Array.from(pairs.flatMap((pair) => [pair.chosen, pair.rejected])),
      reference: Float64Array.from(pairs.flatMap((pair) => [pair.referenceChosen, pair.referenceRejected])),
      loss: nativeLoss(loss),
      totalPairs,
      totalChosenTokens,
      checkpointing: options.checkpointing ?? false,
    };
    const result = await cancellable(options.signal, (cancel) => this.#native.preferenceStep(step, cancel));
    return {
      loss: result.loss,
      token: result.tokenLogProbs,
      pairs: pairs.map((pair, i) => {
        const chosenLogProb = result.logProbs[2 * i] as number;
        const rejectedLogProb = result.logProbs[2 * i + 1] as number;
        return {
          loss: result.pairLosses[i] as number,
          chosenLogProb,
          rejectedLogProb,
          chosenLength: result.lengths[2 * i] as number,
          rejectedLength: result.lengths[2 * i + 1] as number,
          chosenReward: loss.beta * (chosenLogProb - pair.referenceChosen),
          rejectedReward: loss.beta * (rejectedLogProb - pair.referenceRejected),
        };
      }),
    };
  }

  /** Adds the gradient of the cross-entropy of the scored tokens. `weight` of each token: default 1 / their number. */
  async supervisedStep(
    forest: Forest,
    options: TrainingCallOptions & { weight?: number | undefined } = {},
  ): Promise<SupervisedStepResult> {
    await this.#turn();
    checkForest(forest, this.config);
    let tokens = 0;
    for (let node = 0; node < nodeCount(forest); node++) tokens += scoredTokens(forest, node);
    if (tokens === 0) {
      throw new TemporaError("No token of the forest is scored", {
        remedy: "Mark the nodes of the completions as scored.",
      });
    }
    const weight = checkNumber(options.weight ?? 1 / tokens, "weight");
    const coefficients = new Float32Array(forest.tokens.length).fill(-weight);
    const { token, node } = await this.#accumulate(forest, coefficients, options);
    return { loss: -weight * node.reduce((sum, value) => sum + value, 0), tokens, token };
  }

  /** Adds the gradient of Σ dLossDLogProb · log-prob over the scored tokens: any loss of log-probs. dLossDLogProb: [T]. */
  async accumulate(forest: Forest, dLossDLogProb: Float32Array, options: TrainingCallOptions = {}): Promise<LogProbs> {
    await this.#turn();
    checkForest(forest, this.config);
    checkCoefficients(dLossDLogProb, forest);
    return this.#accumulate(forest, dLossDLogProb, options);
  }

  async #accumulate(forest: Forest, coefficients: Float32Array, options: TrainingCallOptions): Promise<LogProbs> {
    const native = this.adapters.native(forest);
    const result = await cancellable(options.signal, (cancel) =>
      this.#native.accumulate(native, coefficients, options.checkpointing ?? false, cancel),
    );
    return { token: result.tokenLogProbs, node: result.nodeLogProbs };
  }

  /** States after the final norm at the last token of each of `nodes`: [nodes.length × hiddenSize]. */
  async hiddenStates(forest: Forest, nodes: ArrayLike<number>, options: CallOptions = {}): Promise<Float32Array> {
    await this.#turn();
    checkForest(forest, this.config);
    const list = Array.from(nodes);
    for (const [i, node] of list.entries()) checkNode(node, forest, `nodes[${i}]`);
    if (list.length === 0) return new Float32Array(0);
    const native = this.adapters.native(forest);
    return cancellable(options.signal, (cancel) => this.#native.hiddenStates(native, Int32Array.from(list), cancel));
  }

  async zeroGradients(): Promise<void> {
    await this.#turn();
    await cancellable(undefined, () => this.#native.zeroGradients());
  }

  /**
   * One AdamW step on the accumulated gradients, which are zero afterwards. gradNorm is their norm before clipping.
   * @throws TemporaError when that norm is not finite; the weights are as before.
   */
  async optimizerStep(options: OptimizerStepOptions): Promise<{ gradNorm: number }> {
    await this.#turn();
    const native = optimizerOptions(options);
    this.#weightChanges++;
    return cancellable(undefined, () => this.#native.optimizerStep(native));
  }

  /**
   * Completes prompts; completions come in the order they finish. What a completion becomes depends on the weights, its
   * prompt, the seed, its key and its sample number, not on what else is generated with it. Leaving the loop early frees all.
   * Changing the weights meanwhile ends it with an error.
   */
  async *generate(
    prompts: readonly GenerationPrompt[],
    options: GenerationOptions,
  ): AsyncGenerator<Completion, void, undefined> {
    const { forest, leaves } = promptForest(prompts, this.config);
    yield* this.generateForest(forest, leaves, options);
  }

  /** Completes nodes of a forest; what lies on several paths is computed once. */
  async *generateForest(
    forest: Forest,
    leaves: readonly GenerationLeaf[],
    options: GenerationOptions,
  ): AsyncGenerator<Completion, void, undefined> {
    await this.#turn();
    const request = generationRequest(forest, leaves, options, this.config, this.adapters.native(forest));
    const collector = new CompletionCollector(request, options);
    const changes = this.#weightChanges;
    const generation = await cancellable(options.signal, (cancel) => this.#native.startGeneration(request, cancel));
    try {
      for (;;) {
        await this.#turn();
        if (changes !== this.#weightChanges) throw weightsChanged();
        const step = await cancellable(options.signal, (cancel) => generation.step(collector.stepsAtOnce, cancel));
        const { completions, stopped } = collector.take(step);
        if (stopped.length > 0) generation.finishRows(stopped);
        yield* completions;
        if (step.done) return;
      }
    } finally {
      generation.dispose();
    }
  }

  /** Completions that come and go while others run, each through an adapter of its own or none. Changing the weights meanwhile ends its steps with an error. */
  batch(options: BatchOptions = {}): GenerationBatch {
    this.#requireOpen();
    const changes = this.#weightChanges;
    const turn = async () => {
      await this.#turn();
      if (changes !== this.#weightChanges) throw weightsChanged();
    };
    const open = (native: NativeBatchOptions) =>
      cancellable(undefined, (cancel) => this.#native.startBatch(native, cancel));
    const adapterId = (name: string | null | undefined) => this.adapters.idOf(name);
    return new GenerationBatch({ config: this.config, turn, open, adapterId }, options);
  }

  /** One parameter's little-endian bytes in the engine's dtype. */
  async getParameter(name: string): Promise<Uint8Array> {
    await this.#turn();
    const index = this.#parameter(name);
    return cancellable(undefined, () => this.#native.getParameter(index));
  }

  /** The accumulated gradient of a parameter or of a tensor of the active adapter; zeros for what is frozen. */
  async getGradient(name: string): Promise<Float32Array> {
    await this.#turn();
    const { index, adapter } = this.adapters.activeTensor(name) ?? { index: this.#parameter(name), adapter: undefined };
    return cancellable(undefined, () => this.#native.getGradient(index, adapter));
  }

  /** Replaces all weights by those of a model of the same shape. The optimizer's state stays as it is. */
  setParameters(model: ModelSource): Promise<void> {
    return this.#alone(async () => {
      const tensors = await sameModelTensors(model, this.config);
      this.#weightChanges++;
      await loadParameters(this.#native, tensors, { held: this.#held });
    });
  }

  /** Every parameter in turn, as saveCheckpoint takes them. */
  async *tensors(): AsyncGenerator<TensorBytes, void, undefined> {
    for (const { name, shape } of this.parameters)
      yield { name, dtype: this.dtype, shape, bytes: await this.getParameter(name) };
  }

  /** A copy of the model's weights to return to; adapters are not among them. */
  async snapshot(): Promise<Snapshot> {
    await this.#turn();
    return new Snapshot(await cancellable(undefined, () => this.#native.snapshot()));
  }

  /** The weights as they were, bit for bit. The optimizer's state stays as it is. */
  async restore(snapshot: Snapshot): Promise<void> {
    await this.#turn();
    this.#weightChanges++;
    await cancellable(undefined, () => this.#native.restore(Snapshot.native(snapshot)));
  }

  /** What is trained: the tensors of the active adapter, or the model's parameters. */
  get trainable(): readonly ParameterShape[] {
    const { active } = this.adapters;
    return active === null ? this.parameters : this.adapters.parameters(active);
  }

  /** AdamW steps taken on what is trained, as of the last call that ended. */
  get optimizerSteps(): number {
    this.#requireOpen();
    return this.#native.optimizerSteps;
  }

  /**
   * AdamW's moments of every trainable tensor in turn, zeros before the first step; one tensor's are in memory at a time.
   * With the weights and optimizerSteps they are all that an exact resume needs.
   */
  async *moments(): AsyncGenerator<ParameterMoments, void, undefined> {
    for (const [index, { name }] of this.trainable.entries()) {
      await this.#turn();
      yield { name, ...(await cancellable(undefined, () => this.#native.getOptimizerState(index))) };
    }
  }

  /**
   * Takes the moments of every trainable tensor, in any order and one at a time, and the number of steps taken with them.
   * @throws TemporaError where moments are missing, unknown or of another size; the optimizer is then as new.
   */
  setOptimizerState(
    steps: number,
    moments: Iterable<ParameterMoments> | AsyncIterable<ParameterMoments>,
  ): Promise<void> {
    return this.#alone(async () => {
      checkNumber(steps, "steps", { least: 0, integer: true });
      try {
        await loadMoments(this.#native, this.trainable, moments);
      } catch (error) {
        await cancellable(undefined, () => this.#native.resetOptimizer());
        throw error;
      }
      await cancellable(undefined, () => this.#native.setOptimizerSteps(steps));
    });
  }

  /** Forgets moments, steps and gradients, and gives their memory and the workspace back. */
  async resetOptimizer(): Promise<void> {
    await this.#turn();
    await cancellable(undefined, () => this.#native.resetOptimizer());
  }

  memory(): EngineMemory {
    this.#requireOpen();
    return this.#native.memory();
  }

  /** Frees everything; at once, or when the running call, which is cancelled, has ended. May be called again. */
  dispose(): void {
    this.#disposed = true;
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #parameter(name: string): number {
    const index = this.#index.get(name);
    if (index !== undefined) return index;
    throw new TemporaError(`The model has no parameter ${name}`, { remedy: "Use a name from engine.parameters." });
  }

  #requireOpen(): void {
    if (!this.#disposed) return;
    throw new TemporaError("The engine is disposed", {
      remedy: "Load a new engine; a disposed one cannot be used again.",
    });
  }

  /** A call's turn comes after the multi-part operations before it; the native queue orders the rest. */
  #turn(): Promise<void> | null {
    this.#requireOpen();
    return this.#exclusive;
  }

  /** Runs an operation of several native calls with no other call in between. */
  async #alone<T>(operation: () => Promise<T>): Promise<T> {
    const before = this.#turn();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#exclusive = promise;
    try {
      await before;
      return await operation();
    } finally {
      if (this.#exclusive === promise) this.#exclusive = null;
      resolve();
    }
  }
}
