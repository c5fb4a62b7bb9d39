/**
 * Rows of q and k as llama.cpp's `llama` architecture orders them, or back. Hugging Face rotates dimension i of a head with
 * i + headDim / 2; llama.cpp's rotates neighbours, so its row 2i + s of a head is row i + s · headDim / 2 there
 * (convert_hf_to_gguf.py: LlamaModel.permute). Rows are moved as bytes, whatever their type.
 * @param to "gguf" permutes, "huggingface" undoes it.
 */
export function permuteRows(
  bytes: Uint8Array,
  { heads, headDim, to }: { heads: number; headDim: number; to: "gguf" | "huggingface" },
): Uint8Array {
  const row = bytes.length / (heads * headDim);
  const half = headDim / 2;
  const moved = new Uint8Array(bytes.length);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < headDim; i++) {
      const gguf = head * headDim + i;
      const ours = head * headDim + (i >> 1) + (i & 1) * half;
      const [from, into] = to === "gguf" ? [ours, gguf] : [gguf, ours];
      moved.set(bytes.subarray(from * row, (from + 1) * row), into * row);
    }
  }
  return moved;
}
