import type { RopeScaling } from "@tempora/engine/model";
import type { ConfigReader } from "./config-reader.ts";

/** Rotary settings of a config.json. */
export interface Rope {
  theta: number;
  scaling: RopeScaling | null;
}

const defaultTheta = 10_000;

/**
 * Reads the rotary settings of both styles: `rope_parameters` (transformers 5, flat or one per layer type) and
 * `rope_theta` with `rope_scaling`. Where both stand, `rope_scaling` wins, as in transformers
 * (modeling_rope_utils: convert_rope_params_to_dict).
 */
export function readRope(reader: ConfigReader, layerTypes: readonly string[] | null, maxPositions: number): Rope {
  const scaling = reader.optionalObject("rope_scaling");
  const source =
    scaling !== null && Object.keys(scaling.raw).length > 0 ? scaling : reader.optionalObject("rope_parameters");
  const theta = reader.number("rope_theta", { fallback: defaultTheta, above: 0 });
  refusePartial(reader);
  if (source === null) return { theta, scaling: null };
  const nested = [...new Set(layerTypes ?? [])].filter((type) => type in source.raw);
  if (nested.length === 0) return readFlatRope(source, theta, maxPositions);
  const ropes = nested.map((type) => {
    const one = source.optionalObject(type);
    return one === null
      ? source.refuse(type, "layers without rotary positions")
      : readFlatRope(one, theta, maxPositions);
  });
  const [first, ...others] = ropes as [Rope, ...Rope[]];
  if (others.some((rope) => JSON.stringify(rope) !== JSON.stringify(first))) {
    return reader.refuse("rope_parameters", "rotary settings that differ between layer types");
  }
  return first;
}

function readFlatRope(reader: ConfigReader, outerTheta: number, maxPositions: number): Rope {
  refusePartial(reader);
  const theta = reader.number("rope_theta", { fallback: outerTheta, above: 0 });
  const type = reader.string("rope_type", reader.string("type", "default"));
  switch (type) {
    case "default":
      return { theta, scaling: null };
    case "linear":
      return { theta, scaling: { type, factor: reader.number("factor", { least: 1 }) } };
    case "llama3": {
      const lowFreqFactor = reader.number("low_freq_factor", { above: 0 });
      return {
        theta,
        scaling: {
          type,
          factor: reader.number("factor", { least: 1 }),
          lowFreqFactor,
          highFreqFactor: reader.number("high_freq_factor", { above: lowFreqFactor }),
          originalMaxPositions: reader.integer("original_max_position_embeddings", { fallback: maxPositions }),
        },
      };
    }
    default:
      return reader.refuse(
        "rope_type" in reader.raw ? "rope_type" : "type",
        `rope type "${type}"`,
        "default, linear and llama3",
      );
  }
}

function refusePartial(reader: ConfigReader): void {
  if (reader.number("partial_rotary_factor", { fallback: 1 }) !== 1) {
    reader.refuse("partial_rotary_factor", "rotary positions on a part of each head");
  }
}

/** The rotary part of a config.json in both styles at once, so that transformers 4 and 5 and vLLM read the same. */
export function ropeJson(rope: Rope): Record<string, unknown> {
  const scaling = rope.scaling === null ? null : scalingJson(rope.scaling);
  return {
    rope_parameters: { ...(scaling ?? { rope_type: "default" }), rope_theta: rope.theta },
    rope_scaling: scaling,
    rope_theta: rope.theta,
  };
}

function scalingJson(scaling: RopeScaling): Record<string, unknown> {
  if (scaling.type === "linear") return { rope_type: "linear", factor: scaling.factor };
  return {
    rope_type: "llama3",
    factor: scaling.factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalMaxPositions,
  };
}
