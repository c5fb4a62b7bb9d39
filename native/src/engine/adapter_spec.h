// What an adapter is made of: plain numbers, checked in TypeScript (packages/engine/src/adapters.ts).
#pragma once

#include <cstdint>
#include <vector>

namespace tempora {

struct AdapterModule {
  int parameter = -1;  // of the base: a matrix of a block
  std::int64_t rank = 0;
  float scale = 1;  // alpha / rank, or alpha / sqrt(rank) for rsLoRA
};

struct AdapterSpec {
  std::vector<AdapterModule> modules;
  float dropout = 0;       // of the adapter's input, in training
  std::uint64_t seed = 0;  // of the dropout
};

}  // namespace tempora
