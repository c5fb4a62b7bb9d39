"""A GGUF file of the 135M Llama shape with random weights and peaked logits, for timing llama.cpp.

  python random_gguf.py OUT.gguf BF16|Q8_0|Q4_1          needs: numpy, gguf
"""
import sys

import gguf
import numpy as np

# That of generation.ts: as peaked as a trained model's.
PEAKED_NORM = 12.0
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 576, 1536, 30, 9, 3, 64, 49152

kind = gguf.GGMLQuantizationType[sys.argv[2]]
rng = np.random.default_rng(0)
w = gguf.GGUFWriter(sys.argv[1], "llama")


def matrix(name, rows, cols):
    a = rng.standard_normal((rows, cols), dtype=np.float32) * 0.02
    w.add_tensor(name, gguf.quants.quantize(a, kind), raw_dtype=kind)


w.add_context_length(2048)
w.add_embedding_length(HIDDEN)
w.add_block_count(LAYERS)
w.add_feed_forward_length(INNER)
w.add_head_count(HEADS)
w.add_head_count_kv(KV_HEADS)
w.add_layer_norm_rms_eps(1e-5)
w.add_rope_freq_base(10000.0)
w.add_rope_dimension_count(HEAD_DIM)
w.add_vocab_size(VOCAB)
w.add_file_type(gguf.LlamaFileType[f"MOSTLY_{sys.argv[2]}"])
letters = [chr(c) for c in range(33, 127)] + ["ab", "cd"]
tokens = letters + [f"[T{i}]" for i in range(VOCAB - len(letters))]
w.add_tokenizer_model("gpt2")
w.add_tokenizer_pre("default")
w.add_token_list(tokens)
w.add_token_types([gguf.TokenType.NORMAL] * VOCAB)
w.add_token_merges(["a b", "c d"])
w.add_bos_token_id(VOCAB - 2)
w.add_eos_token_id(VOCAB - 1)

matrix("token_embd.weight", VOCAB, HIDDEN)
w.add_tensor("output_norm.weight", np.full(HIDDEN, PEAKED_NORM, dtype=np.float32))
for layer in range(LAYERS):
    p = f"blk.{layer}."
    for norm in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"{p}{norm}.weight", np.ones(HIDDEN, dtype=np.float32))
    matrix(p + "attn_q.weight", HEADS * HEAD_DIM, HIDDEN)
    matrix(p + "attn_k.weight", KV_HEADS * HEAD_DIM, HIDDEN)
    matrix(p + "attn_v.weight", KV_HEADS * HEAD_DIM, HIDDEN)
    matrix(p + "attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
    matrix(p + "ffn_gate.weight", INNER, HIDDEN)
    matrix(p + "ffn_up.weight", INNER, HIDDEN)
    matrix(p + "ffn_down.weight", HIDDEN, INNER)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
