/** Parts of a layer, by their Hugging Face and their GGUF name (gguf-py: tensor_mapping.py). */
const layerParts: readonly (readonly [string, string])[] = [
  ["input_layernorm", "attn_norm"],
  ["self_attn.q_proj", "attn_q"],
  ["self_attn.k_proj", "attn_k"],
  ["self_attn.v_proj", "attn_v"],
  ["self_attn.o_proj", "attn_output"],
  ["self_attn.q_norm", "attn_q_norm"],
  ["self_attn.k_norm", "attn_k_norm"],
  ["post_attention_layernorm", "ffn_norm"],
  ["mlp.gate_proj", "ffn_gate"],
  ["mlp.up_proj", "ffn_up"],
  ["mlp.down_proj", "ffn_down"],
];
const ofPart = new Map(layerParts);

const outside: Readonly<Record<string, string>> = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};

/** What GGUF calls a parameter of ours. */
export function ggufName(name: string): string {
  const known = outside[name];
  if (known !== undefined) return known;
  const [, layer, part, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  const short = ofPart.get(part ?? "");
  if (short === undefined) throw new Error(`No GGUF name for ${name}`);
  return `blk.${layer}.${short}.${kind}`;
}

/** Whether a tensor's rows are permuted where the architecture is `llama`, and whose heads count. */
export function permutedHeads(name: string): "heads" | "kvHeads" | null {
  if (name.includes(".self_attn.q_proj.")) return "heads";
  return name.includes(".self_attn.k_proj.") ? "kvHeads" : null;
}
