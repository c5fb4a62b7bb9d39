// Tree attention: on tensor cores where attention_tiles.h knows the head, or else plain. Plain, a warp takes a query
// (or, for the gradients of keys and values, a key) and walks what it sees (or what sees it) in order. No scores are
// stored, nothing is added by atomics.
#include "attention_plan.h"
#include "attention_tiles.h"
#include "check.h"
#include "cuda_backend.h"
#include "tree.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kWarpsPerBlock = kBlock / kWarp;

struct CudaAttentionPlan : AttentionPlan {
  Buffer node_of, position, node_start, path_start, path, below_start, below;
  DeviceTiles tiles;

  TreeView view() const {
    const auto ints = [](const Buffer& buffer) { return static_cast<const std::int32_t*>(buffer.data()); };
    return {ints(node_of), ints(position),    ints(node_start), ints(path_start),
            ints(path),    ints(below_start), ints(below)};
  }
};

// Calls visit(key) for every key that query t sees, in order of position. Warp-uniform.
template <typename Visit>
__device__ void for_visible_keys(const TreeView& tree, int t, int window, Visit visit) {
  const int node = tree.node_of[t];
  const int oldest = window > 0 ? tree.position[t] - window + 1 : 0;
  for (int p = tree.path_start[node]; p < tree.path_start[node + 1]; ++p) {
    const int above = tree.path[p];
    const int begin = tree.node_start[above];
    const int end = above == node ? t + 1 : tree.node_start[above + 1];
    const int skip = max(0, oldest - tree.position[begin]);
    for (int j = begin + skip; j < end; ++j) visit(j);
  }
}

// Calls visit(query) for every query that sees key j: the rest of its node, then its descendants, ascending.
template <typename Visit>
__device__ void for_seeing_queries(const TreeView& tree, int j, int window, Visit visit) {
  const int node = tree.node_of[j];
  const auto visit_range = [&](int begin, int end) {
    for (int t = begin; t < end; ++t) {
      if (window > 0 && tree.position[t] - tree.position[j] >= window) break;
      visit(t);
    }
  };
  visit_range(j, tree.node_start[node + 1]);
  for (int b = tree.below_start[node]; b < tree.below_start[node + 1]; ++b) {
    visit_range(tree.node_start[tree.below[b]], tree.node_start[tree.below[b] + 1]);
  }
}

// One warp a (token, query head).
template <typename T>
__global__ void forward_kernel(TreeView tree, AttentionNumbers n, const T* q, const T* k, const T* v, T* out,
                               float* lse) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (item >= static_cast<std::int64_t>(n.tokens) * n.heads) return;
  const int t = static_cast<int>(item / n.heads), head = static_cast<int>(item % n.heads);
  const int kv_head = head / n.group();
  float query[kLaneValues], key[kLaneValues], value[kLaneValues];
  load_head(q + item * n.head_dim, n.head_dim, query);
  OnlineSoftmax softmax;
  for_visible_keys(tree, t, n.window, [&](int j) {
    const std::int64_t at = (static_cast<std::int64_t>(j) * n.kv_heads + kv_head) * n.head_dim;
    load_head(k + at, n.head_dim, key);
    load_head(v + at, n.head_dim, value);
    softmax.add(dot_heads(query, key) * n.scale, value);
  });
  softmax.finish();
  store_head(out + item * n.head_dim, n.head_dim, softmax.out);
  if (threadIdx.x % kWarp == 0) lse[item] = softmax.log_sum();
}

// d_q, one warp a (token, query head); leaves delta = d_out · out for the next kernel.
template <typename T>
__global__ void backward_queries_kernel(TreeView tree, AttentionNumbers n, const T* q, const T* k, const T* v,
                                        const T* out, const float* lse, const T* d_out, float* delta, T* d_q) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (item >= static_cast<std::int64_t>(n.tokens) * n.heads) return;
  const int t = static_cast<int>(item / n.heads), head = static_cast<int>(item % n.heads);
  const int kv_head = head / n.group();
  float query[kLaneValues], key[kLaneValues], value[kLaneValues], gradient[kLaneValues], result[kLaneValues];
  load_head(out + item * n.head_dim, n.head_dim, result);
  load_head(d_out + item * n.head_dim, n.head_dim, gradient);
  const float here = dot_heads(result, gradient);
  if (threadIdx.x % kWarp == 0) delta[item] = here;
  load_head(q + item * n.head_dim, n.head_dim, query);
  for (float& sum : result) sum = 0;
  for_visible_keys(tree, t, n.window, [&](int j) {
    const std::int64_t at = (static_cast<std::int64_t>(j) * n.kv_heads + kv_head) * n.head_dim;
    load_head(k + at, n.head_dim, key);
    load_head(v + at, n.head_dim, value);
    const float p = expf(dot_heads(query, key) * n.scale - lse[item]);
    add_scaled(result, p * (dot_heads(gradient, value) - here) * n.scale, key);
  });
  store_head(d_q + item * n.head_dim, n.head_dim, result);
}

// d_k and d_v, one warp a (token, key head): every query that sees the key, for each head of its group.
template <typename T>
__global__ void backward_keys_kernel(TreeView tree, AttentionNumbers n, const T* q, const T* k, const T* v,
                                     const float* lse, const T* d_out, const float* delta, T* d_k, T* d_v) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (item >= static_cast<std::int64_t>(n.tokens) * n.kv_heads) return;
  const int j = static_cast<int>(item / n.kv_heads), kv_head = static_cast<int>(item % n.kv_heads);
  float key[kLaneValues], value[kLaneValues], query[kLaneValues], gradient[kLaneValues];
  float key_sum[kLaneValues] = {}, value_sum[kLaneValues] = {};
  load_head(k + item * n.head_dim, n.head_dim, key);
  load_head(v + item * n.head_dim, n.head_dim, value);
  for_seeing_queries(tree, j, n.window, [&](int t) {
    for (int h = 0; h < n.group(); ++h) {
      const std::int64_t row = static_cast<std::int64_t>(t) * n.heads + kv_head * n.group() + h;
      load_head(q + row * n.head_dim, n.head_dim, query);
      load_head(d_out + row * n.head_dim, n.head_dim, gradient);
      const float p = expf(dot_heads(query, key) * n.scale - lse[row]);
      add_scaled(value_sum, p, gradient);
      add_scaled(key_sum, p * (dot_heads(gradient, value) - delta[row]) * n.scale, query);
    }
  });
  store_head(d_k + item * n.head_dim, n.head_dim, key_sum);
  store_head(d_v + item * n.head_dim, n.head_dim, value_sum);
}

}  // namespace

std::unique_ptr<AttentionPlan> CudaBackend::plan_attention(const ForestLayout& layout) {
  std::vector<std::int32_t> node_of(static_cast<std::size_t>(layout.tokens));
  std::vector<std::int32_t> path_start{0}, path, below_start{0}, below;
  std::vector<std::vector<std::int32_t>> descendants(static_cast<std::size_t>(layout.nodes));
  for (std::int32_t node = 0; node < layout.nodes; ++node) {
    for (std::int32_t t = layout.node_start[node]; t < layout.node_start[node + 1]; ++t) node_of[t] = node;
    for (const std::int32_t above : layout.path(node)) {
      path.push_back(above);
      if (above != node) descendants[above].push_back(node);
    }
    path_start.push_back(static_cast<std::int32_t>(path.size()));
  }
  for (const auto& nodes : descendants) {
    below.insert(below.end(), nodes.begin(), nodes.end());
    below_start.push_back(static_cast<std::int32_t>(below.size()));
  }
  auto plan = std::make_unique<CudaAttentionPlan>();
  plan->node_of = upload(node_of);
  plan->position = upload(layout.position);
  plan->node_start = upload(layout.node_start);
  plan->path_start = upload(path_start);
  plan->path = upload(path);
  plan->below_start = upload(below_start);
  plan->below = upload(below);
  const AttentionTiles tiles = make_attention_tiles(layout);
  const auto upload_pairs = [&](const TilePairs& pairs) {
    return DevicePairs{upload(pairs.start), upload(pairs.pair), upload(pairs.order),
                       static_cast<unsigned>(pairs.order.size())};
  };
  plan->tiles = {upload(tiles.range),      upload(tiles.position),      upload(tiles.tile_position),
                 upload_pairs(tiles.wide), upload_pairs(tiles.queries), upload_pairs(tiles.keys)};
  return plan;
}

void CudaBackend::tree_attention(const AttentionPlan& plan, const AttentionShape& shape, const Matrix& q,
                                 const Matrix& k, const Matrix& v, const Matrix& out, float* lse) {
  require_dense("tree_attention", {q, k, v, out});
  if (q.rows == 0) return;
  const auto& cuda_plan = static_cast<const CudaAttentionPlan&>(plan);
  if (tiles_know(shape, q.dtype)) return attend_by_tiles(stream_, cuda_plan.tiles, shape, q, k, v, out, lse);
  const AttentionNumbers numbers = numbers_of(shape, q.rows);
  const TreeView tree = cuda_plan.view();
  with_type(q.dtype, [&]<typename T>() {
    launch("tree_attention", forward_kernel<T>, blocks_for(q.rows * shape.heads, kWarpsPerBlock), kBlock, stream_, tree,
           numbers, static_cast<const T*>(q.data), static_cast<const T*>(k.data), static_cast<const T*>(v.data),
           static_cast<T*>(out.data), lse);
  });
}

void CudaBackend::tree_attention_backward(const AttentionPlan& plan, const AttentionShape& shape, const Matrix& q,
                                          const Matrix& k, const Matrix& v, const Matrix& out, const float* lse,
                                          const Matrix& d_out, const Matrix& d_q, const Matrix& d_k,
                                          const Matrix& d_v) {
  require_dense("tree_attention_backward", {q, k, v, out, d_out, d_q, d_k, d_v});
  if (q.rows == 0) return;
  const auto& cuda_plan = static_cast<const CudaAttentionPlan&>(plan);
  const Buffer scratch = allocate(static_cast<std::size_t>(q.rows * shape.heads) * 4, MemoryUse::workspace);
  float* delta = static_cast<float*>(scratch.data());
  if (tiles_know(shape, q.dtype)) {
    return attend_by_tiles_backward(stream_, cuda_plan.tiles, shape, q, k, v, out, lse, {d_out, d_q, d_k, d_v, delta});
  }
  const AttentionNumbers numbers = numbers_of(shape, q.rows);
  const TreeView tree = cuda_plan.view();
  with_type(q.dtype, [&]<typename T>() {
    const T* queries = static_cast<const T*>(q.data);
    const T* keys = static_cast<const T*>(k.data);
    const T* values = static_cast<const T*>(v.data);
    const T* gradient = static_cast<const T*>(d_out.data);
    launch("tree_attention_backward, queries", backward_queries_kernel<T>,
           blocks_for(q.rows * shape.heads, kWarpsPerBlock), kBlock, stream_, tree, numbers, queries, keys, values,
           static_cast<const T*>(out.data), lse, gradient, delta, static_cast<T*>(d_q.data));
    launch("tree_attention_backward, keys", backward_keys_kernel<T>,
           blocks_for(q.rows * shape.kv_heads, kWarpsPerBlock), kBlock, stream_, tree, numbers, queries, keys, values,
           lse, gradient, delta, static_cast<T*>(d_k.data), static_cast<T*>(d_v.data));
  });
}

}  // namespace tempora
