#include <algorithm>
#include <cmath>

#include "attention_plan.h"
#include "attention_scratch.h"
#include "cpu_backend.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

TreeAttentionCall call_of(const CpuAttentionPlan& plan, const AttentionShape& shape, const Matrix& q, const Matrix& k,
                          const Matrix& v) {
  const auto tokens = static_cast<std::int64_t>(plan.position.size());
  require(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0, "tree attention: kv_heads divides heads");
  require(q.rows == tokens && q.cols == static_cast<std::int64_t>(shape.heads) * shape.head_dim,
          "tree attention: q is [T, heads · head_dim]");
  require(k.rows == tokens && k.cols == static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim &&
              v.rows == tokens && v.cols == k.cols && k.dtype == q.dtype && v.dtype == q.dtype,
          "tree attention: k and v are [T, kv_heads · head_dim] of q's type");
  TreeAttentionCall call{};
  call.streams = plan.streams.data();
  call.segments = plan.segments.data();
  call.position = plan.position.data();
  call.heads = shape.heads;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  call.window = attention_window(shape);
  call.q = q.data;
  call.k = k.data;
  call.v = v.data;
  return call;
}

// Where the chunks of one tree and key/value head sum d_k and d_v: f32 [chunks, 2, tokens, head_dim].
class GradientSums {
 public:
  GradientSums(CpuBackend& backend, const CpuAttentionPlan& plan, const AttentionShape& shape)
      : plan_(plan),
        shape_(shape),
        buffer_(backend.workspace(static_cast<std::size_t>(plan.gradient_rows * shape.kv_heads * 2 * shape.head_dim) *
                                  sizeof(float))) {}

  float* of(std::int32_t tree, int kv_head, std::int32_t chunk) const {
    const AttentionTree& t = plan_.trees[tree];
    const std::int64_t head_rows = static_cast<std::int64_t>(t.tokens) * t.chunks;
    const std::int64_t row =
        t.tokens_before * shape_.kv_heads + head_rows * kv_head + static_cast<std::int64_t>(t.tokens) * chunk;
    return static_cast<float*>(buffer_.data()) + row * 2 * shape_.head_dim;
  }
  std::int64_t matrix_size(std::int32_t tree) const {
    return static_cast<std::int64_t>(plan_.trees[tree].tokens) * shape_.head_dim;
  }

  // Zeros where the chunk is going to add.
  void clear(std::int32_t tree, int kv_head, std::int32_t chunk) const {
    const std::uint8_t* sees = plan_.seen_by(tree, chunk);
    float* keys = of(tree, kv_head, chunk);
    for (std::int64_t local = 0; local < plan_.trees[tree].tokens; ++local) {
      if (sees[local] == 0) continue;
      float* row = keys + local * shape_.head_dim;
      std::fill_n(row, shape_.head_dim, 0.0f);
      std::fill_n(row + matrix_size(tree), shape_.head_dim, 0.0f);
    }
  }

 private:
  const CpuAttentionPlan& plan_;
  const AttentionShape& shape_;
  Buffer buffer_;
};

// What the thread that has an item, a chunk's for one head, takes after its block: of another item, as if the threads
// took turns.
NextQueries next_queries(const CpuAttentionPlan& plan, std::int64_t item, int kv_heads, int threads,
                         std::int32_t block) {
  const auto chunk_of = [&](std::int64_t i) { return plan.chunks[static_cast<std::size_t>(i / kv_heads)]; };
  std::int32_t next = block + 1;
  if (next == chunk_of(item).first_block + chunk_of(item).blocks) {
    item += threads;
    if (item >= static_cast<std::int64_t>(plan.chunks.size()) * kv_heads) return {};
    next = chunk_of(item).first_block;
  }
  return {plan.blocks[next].token, plan.blocks[next].count, static_cast<int>(item % kv_heads)};
}

}  // namespace

std::unique_ptr<AttentionPlan> CpuBackend::plan_attention(const ForestLayout& layout) {
  return make_attention_plan(layout);
}

void CpuBackend::tree_attention(const AttentionPlan& attention_plan, const AttentionShape& shape, const Matrix& q,
                                const Matrix& k, const Matrix& v, const Matrix& out, float* lse) {
  require_dense("tree_attention", {q, k, v, out});
  const auto& plan = static_cast<const CpuAttentionPlan&>(attention_plan);
  TreeAttentionCall call = call_of(plan, shape, q, k, v);
  require(out.dtype == q.dtype && out.rows == q.rows && out.cols == q.cols, "tree attention: out is as q");
  call.out = out.data;
  call.lse = lse;
  const AttentionForwardKernels& kernels = attention_forward_kernels_for(isa_);
  const ThreadScratch scratch(*this, kernels.scratch(shape.heads / shape.kv_heads, shape.head_dim));
  const auto forward = kernels.forward[index_of(q.dtype)];
  const auto blocks = static_cast<std::int64_t>(plan.blocks.size()), items = blocks * shape.kv_heads;
  parallel_items(threads_, items, [&](std::int64_t item, int thread) {
    // One head after the other, so that its keys stay in the caches. Backwards: later blocks of a tree see more keys,
    // and the longest work is best started first.
    const auto block = blocks - 1 - item % blocks;
    forward(call, plan.blocks[static_cast<std::size_t>(block)], static_cast<int>(item / blocks), scratch.of(thread));
  });
}

void CpuBackend::tree_attention_backward(const AttentionPlan& attention_plan, const AttentionShape& shape,
                                         const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out,
                                         const float* lse, const Matrix& d_out, const Matrix& d_q, const Matrix& d_k,
                                         const Matrix& d_v) {
  require_dense("tree_attention_backward", {q, k, v, out, d_out, d_q, d_k, d_v});
  const auto& plan = static_cast<const CpuAttentionPlan&>(attention_plan);
  TreeAttentionCall call = call_of(plan, shape, q, k, v);
  require(d_out.dtype == q.dtype && d_out.size() == q.size() && out.dtype == q.dtype && d_q.dtype == q.dtype &&
              d_k.dtype == q.dtype && d_v.dtype == q.dtype && d_q.size() == q.size() && d_k.size() == k.size() &&
              d_v.size() == k.size(),
          "tree attention backward: gradients are as what they are gradients of");
  call.out = out.data;
  call.lse = const_cast<float*>(lse);
  call.d_out = d_out.data;
  call.d_q = d_q.data;
  const AttentionBackwardKernels& kernels = attention_backward_kernels_for(isa_);
  const ThreadScratch scratch(*this, kernels.scratch(shape.heads / shape.kv_heads, shape.head_dim));
  const GradientSums sums(*this, plan, shape);
  const auto backward = kernels.backward[index_of(q.dtype)];
  const auto items = static_cast<std::int64_t>(plan.chunks.size()) * shape.kv_heads;
  parallel_items(threads_, items, [&](std::int64_t item, int thread) {
    const GradientChunk& chunk = plan.chunks[static_cast<std::size_t>(item / shape.kv_heads)];
    const auto kv_head = static_cast<int>(item % shape.kv_heads);
    float* keys = sums.of(chunk.tree, kv_head, chunk.index);
    const std::int64_t size = sums.matrix_size(chunk.tree);
    sums.clear(chunk.tree, kv_head, chunk.index);
    for (std::int32_t b = chunk.first_block; b < chunk.first_block + chunk.blocks; ++b) {
      backward(call, plan.blocks[b], kv_head, next_queries(plan, item, shape.kv_heads, threads_, b), keys, keys + size,
               scratch.of(thread));
    }
  });

  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  const auto add_up = kernels.add_up[index_of(k.dtype)];
  parallel_ranges(threads_, k.rows, row_grain(k.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token) {
      const std::int32_t tree = plan.tree[token], local = plan.local[token];
      for (int head = 0; head < shape.kv_heads; ++head) {
        const float *keys[kTreeChunks], *values[kTreeChunks];
        std::int32_t parts = 0;
        for (std::int32_t chunk = 0; chunk < plan.trees[tree].chunks; ++chunk) {
          if (plan.seen_by(tree, chunk)[local] == 0) continue;
          keys[parts] = sums.of(tree, head, chunk) + static_cast<std::int64_t>(local) * shape.head_dim;
          values[parts] = keys[parts] + sums.matrix_size(tree);
          ++parts;
        }
        const std::int64_t at = token * k.cols + static_cast<std::int64_t>(head) * shape.head_dim;
        add_up(keys, parts, scale, element(d_k, at), shape.head_dim);
        add_up(values, parts, 1.0f, element(d_v, at), shape.head_dim);
      }
    }
  });
}

}  // namespace tempora
