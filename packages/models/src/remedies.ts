/** What computes the architectures that Tempora does not. */
export const otherArchitectures =
  "Other architectures are trained by TRL (`trl dpo --model_name_or_path MODEL`) and run by llama.cpp (`llama-server -m FILE.gguf`), whose server may judge here (--judge endpoint --endpoint http://localhost:8080/v1)";

/** How to come by weights that are not quantized, from a folder whose weights are. */
export function unquantized(folder: string, method: unknown): string {
  const source = "Name the model that it was quantized from (its card says which)";
  const gguf = "or a GGUF file of it (org/name/file.gguf), which is decoded when it is read";
  if (method !== "bitsandbytes") return `${source}, ${gguf}`;
  // Of what is common only bitsandbytes has PreTrainedModel.dequantize (transformers: quantizers/quantizer_bnb_*bit.py).
  const from = `'${folder.replaceAll("'", "\\'")}'`;
  const python = `from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; M.from_pretrained(${from}).dequantize().save_pretrained('unquantized'); T.from_pretrained(${from}).save_pretrained('unquantized')`;
  return `${source}, ${gguf}, or dequantize it: python -c "${python}"`;
}
