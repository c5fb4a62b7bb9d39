import { TemporaError } from "@tempora/errors";
import { checkNumber } from "./check.ts";
import { type ModelConfig, type ParameterShape, parameterShapes, type TensorSource } from "./model.ts";

/**
 * A LoRA adapter (Hu et al. 2021): beside a matrix W [N, K] lie A [rank, K] and B [N, rank], and the product becomes
 * x Wᵀ + scale · x Aᵀ Bᵀ. The fields mean what they mean in PEFT's LoraConfig.
 */
export interface AdapterConfig {
  rank: number;
  /** The scale is alpha / rank, or alpha / √rank with rsLora. */
  alpha: number;
  /** Rank-stabilised (Kalajdzievski 2023); default false. */
  rsLora?: boolean | undefined;
  /**
   * Which matrices are adapted: "all-linear" (default) for all of the blocks, a list of module names or their ends
   * ("q_proj", "layers.0.self_attn.q_proj"), or a regular expression that matches whole module names.
   */
  targets?: "all-linear" | string | readonly string[] | undefined;
  /** Share of the adapter's input that is dropped in training; default 0. */
  dropout?: number | undefined;
  /** Other ranks and alphas, by regular expressions that match the end of a module's name. */
  ranks?: Readonly<Record<string, number>> | undefined;
  alphas?: Readonly<Record<string, number>> | undefined;
}

/** An adapter to load: a config and the tensors of adapterTensors(). */
export interface AdapterSource {
  config: AdapterConfig;
  /** Where it lies, for messages. */
  name: string;
  tensors(): Iterable<TensorSource> | AsyncIterable<TensorSource>;
}

/** One adapted matrix. */
export interface AdapterModule {
  /** As in Hugging Face's models: model.layers.0.self_attn.q_proj. */
  name: string;
  /** The matrix's number among the model's parameters, and its shape. */
  parameter: number;
  outputs: number;
  inputs: number;
  rank: number;
  scale: number;
}

const suffix = ".weight";
const allLinear = "all-linear";

/** The matrices that an adapter may adapt: those of the blocks. */
function linearModules(config: ModelConfig): { name: string; parameter: number; shape: readonly number[] }[] {
  return parameterShapes(config).flatMap(({ name, shape }, parameter) =>
    /^model\.layers\..*_proj\.weight$/.test(name) ? [{ name: name.slice(0, -suffix.length), parameter, shape }] : [],
  );
}

function expression(source: string, around: (source: string) => string, field: string): RegExp {
  try {
    return new RegExp(around(source), "u");
  } catch (cause) {
    throw new TemporaError(`${JSON.stringify(source)} is no regular expression`, {
      where: { field },
      remedy: "Give module names, or an expression that JavaScript understands.",
      cause,
    });
  }
}

function matcher(targets: AdapterConfig["targets"]): (name: string) => boolean {
  if (targets === undefined || targets === allLinear) return () => true;
  if (typeof targets === "string") {
    const whole = expression(targets, (source) => `^(?:${source})$`, "targets");
    return (name) => whole.test(name);
  }
  if (!Array.isArray(targets) || !targets.every((target) => typeof target === "string")) {
    throw new TemporaError("The targets are no list of names", {
      where: { field: "targets" },
      remedy: 'Give names of matrices, as ["q_proj"], or "all-linear".',
    });
  }
  return (name) => targets.some((target) => name === target || name.endsWith(`.${target}`));
}

/** The value of the first pattern that matches a module's name, as PEFT looks it up. */
function byPattern(
  patterns: Readonly<Record<string, number>> | undefined,
  field: string,
): (name: string) => number | undefined {
  const list = Object.entries(patterns ?? {}).map(([source, value]) => ({
    pattern: expression(source, (text) => `^(?:.*\\.)?(?:${text})$`, field),
    value,
  }));
  return (name) => list.find(({ pattern }) => pattern.test(name))?.value;
}

function checkTargets(targets: AdapterConfig["targets"], names: readonly string[], found: number): void {
  const unmatched =
    typeof targets === "object"
      ? targets.filter((target) => !names.some((name) => name === target || name.endsWith(`.${target}`)))
      : [];
  if (found > 0 && unmatched.length === 0) return;
  throw new TemporaError(
    unmatched.length > 0
      ? `An adapter of ${unmatched.join(", ")} fits no matrix of the model`
      : "The adapter fits no matrix of the model",
    {
      where: { field: "targets" },
      remedy:
        "Target q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj; embeddings and head take no adapter.",
    },
  );
}

/** The matrices that an adapter adapts, in the order of the model. @throws TemporaError where the config has no meaning. */
export function adapterModules(adapter: AdapterConfig, model: ModelConfig): AdapterModule[] {
  const positive = { least: 1, most: 0x7fffffff, integer: true };
  checkNumber(adapter.rank, "rank", positive);
  checkNumber(adapter.alpha, "alpha");
  checkNumber(adapter.dropout ?? 0, "dropout", { least: 0, below: 1 });
  const linear = linearModules(model);
  const matches = matcher(adapter.targets);
  const chosen = linear.filter(({ name }) => matches(name));
  checkTargets(
    adapter.targets,
    linear.map(({ name }) => name),
    chosen.length,
  );
  const rankOf = byPattern(adapter.ranks, "ranks");
  const alphaOf = byPattern(adapter.alphas, "alphas");
  return chosen.map(({ name, parameter, shape }) => {
    const rank = checkNumber(rankOf(name) ?? adapter.rank, `the rank of ${name}`, positive);
    const alpha = checkNumber(alphaOf(name) ?? adapter.alpha, `the alpha of ${name}`);
    const scale = alpha / (adapter.rsLora ? Math.sqrt(rank) : rank);
    return { name, parameter, outputs: shape[0] as number, inputs: shape[1] as number, rank, scale };
  });
}

/** The tensors of an adapter, A and B of each module in turn, named as PEFT names them behind "base_model.model.". */
export function adapterTensors(modules: readonly AdapterModule[]): ParameterShape[] {
  return modules.flatMap(({ name, outputs, inputs, rank }) => [
    { name: `${name}.lora_A.weight`, shape: [rank, inputs], decays: true },
    { name: `${name}.lora_B.weight`, shape: [outputs, rank], decays: true },
  ]);
}
