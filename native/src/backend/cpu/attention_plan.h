// What tree attention works out of a forest once for all layers.
#pragma once

#include <cstdint>
#include <vector>

#include "../backend.h"
#include "kernels/attention.h"

namespace tempora {

// Chunks that a tree may have at most: each holds gradients of all the tree's keys.
constexpr std::int32_t kTreeChunks = 4;

// Query blocks whose gradients of keys and values are summed by one thread at a time.
struct GradientChunk {
  std::int32_t tree;
  std::int32_t index;  // among the chunks of its tree
  std::int32_t first_block, blocks;
};

struct AttentionTree {
  std::int32_t tokens = 0;
  std::int32_t chunks = 0;
  std::int64_t tokens_before = 0;  // Σ tokens · chunks of the trees before
};

// Everything here follows from the forest alone, never from the number of threads: so do the sums' orders.
struct CpuAttentionPlan : AttentionPlan {
  std::vector<QueryBlock> blocks;  // tree after tree
  std::vector<KeyStream> streams;
  std::vector<KeySegment> segments;
  std::vector<std::int32_t> position;  // [T]
  std::vector<AttentionTree> trees;
  std::vector<GradientChunk> chunks;  // by descending cost
  std::vector<std::int32_t> tree;     // [T]
  std::vector<std::int32_t> local;    // [T] index among the tokens of its tree
  std::int64_t gradient_rows = 0;     // Σ tokens · chunks over the trees
  // [gradient_rows] of each tree and chunk, whether it sees the tree's token: others have no part in its gradients.
  std::vector<std::uint8_t> sees;

  const std::uint8_t* seen_by(std::int32_t tree, std::int32_t chunk) const {
    const AttentionTree& t = trees[static_cast<std::size_t>(tree)];
    return sees.data() + t.tokens_before + static_cast<std::int64_t>(t.tokens) * chunk;
  }
};

std::unique_ptr<CpuAttentionPlan> make_attention_plan(const ForestLayout& layout);

}  // namespace tempora
