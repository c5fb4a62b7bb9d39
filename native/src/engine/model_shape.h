// A decoder's shape: plain numbers, checked in TypeScript (packages/engine/src/model.ts).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tempora {

struct ModelShape {
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float norm_eps = 1e-5f;
  bool tied_head = false;
  bool qkv_bias = false;
  bool output_bias = false;
  bool qk_norm = false;
  std::vector<std::int32_t> windows;      // [layers], 0 for all
  std::vector<float> rotary_frequencies;  // [head_dim / 2]
  int max_positions = 0;

  int query_size() const { return heads * head_dim; }
  int key_size() const { return kv_heads * head_dim; }
};

}  // namespace tempora
