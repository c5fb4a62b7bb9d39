// Flash attention over a forest, one block of queries and one key/value head at a time.
#pragma once

#include "kernels.h"

namespace tempora {

// Adjacent tokens of one node. `local` counts the tokens of the node's tree.
struct KeySegment {
  std::int32_t token;
  std::int32_t local;
  std::int32_t count;
};

// Keys of a path at consecutive positions [position, position + count), seen by query rows [row_begin, row_end) of a
// block, each up to its own position.
struct KeyStream {
  std::int32_t first_segment, segments;
  std::int32_t position, count;
  std::int32_t row_begin, row_end;
};

// Adjacent tokens of one tree, and the keys that they see.
struct QueryBlock {
  std::int32_t token, count;
  std::int32_t first_stream, streams;
};

constexpr int kQueryBlock = 64;  // tokens, at most

// Matrices are row-major: q, out, d_out, d_q [T, heads · head_dim], k, v [T, kv_heads · head_dim], lse [T, heads].
struct TreeAttentionCall {
  const KeyStream* streams;
  const KeySegment* segments;
  const std::int32_t* position;  // [T]
  std::int32_t heads, kv_heads, head_dim;
  std::int32_t window;  // more than any position where all is visible
  const void *q, *k, *v;
  void* out;
  float* lse;
  const void* d_out;  // backward only, as d_q
  void* d_q;
};

struct AttentionForwardKernels {
  // Floats of scratch that one thread needs.
  std::int64_t (*scratch)(int heads_per_kv_head, int head_dim);
  // Writes the block's rows of out and lse, for the query heads of kv_head. Indexed by DType.
  void (*forward[2])(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, float* scratch);
};

// Rows of queries that the thread takes after a block's: they are brought meanwhile.
struct NextQueries {
  std::int32_t token = 0, count = 0;
  int kv_head = 0;
};

struct AttentionBackwardKernels {
  std::int64_t (*scratch)(int heads_per_kv_head, int head_dim);
  // Writes the block's rows of d_q; adds its share of d_k and d_v into f32 [tokens of the tree, head_dim], unscaled:
  // d_k is still to be divided by sqrt(head_dim).
  void (*backward[2])(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, const NextQueries& next,
                      float* d_k, float* d_v, float* scratch);
  // to [n] = scale · (parts[0] + parts[1] + ...), `count` >= 1 parts f32 [n] added in their order.
  void (*add_up[2])(const float* const* parts, std::int32_t count, float scale, void* to, std::int64_t n);
};

TEMPORA_DECLARE_KERNELS(AttentionForwardKernels, attention_forward_kernels)
TEMPORA_DECLARE_KERNELS(AttentionBackwardKernels, attention_backward_kernels)

}  // namespace tempora
