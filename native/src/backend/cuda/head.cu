// The log-prob head in chunks of the vocabulary: logits of one chunk at a time, an online log-sum-exp over the chunks
// in the forward pass, exact coefficients in the backward pass.
//
// Kept bf16 logits are kept as log-probs (in bf16; the CPU keeps 10 bits of fraction): a likely token's log-prob is
// then nearly exact. Until a row's log-sum-exp is known, they count from the largest logit that the row has had so far.
#include <algorithm>

#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

std::int64_t chunk_columns(std::int64_t chunk_bytes, std::int64_t rows, std::int64_t vocabulary) {
  const std::int64_t columns = chunk_bytes / 4 / rows / 256 * 256;
  return std::clamp<std::int64_t>(columns, std::min<std::int64_t>(256, vocabulary), vocabulary);
}

// The part of the vocabulary that a launch sees, and where its edges lie.
struct ChunkView {
  std::int64_t begin, columns, vocabulary;
  const std::int32_t* row_start;
  const std::int32_t* token;
};

__device__ void keep_logit(float* p, float logit, float) { *p = logit; }
__device__ void keep_logit(bf16* p, float logit, float counted_from) { store(p, logit - counted_from); }

// One block a row: (largest, sum) of exp over the chunks so far; picks the logits of the row's targets. Where `keep` is
// not null it gets the logits (f32) or what they are above the row's largest so far (bf16), which `counted_from` gets.
template <typename K>
__global__ void head_statistics_kernel(const float* logits, ChunkView chunk, float* largest, float* sum,
                                       float* target_logit, K* keep, float* counted_from) {
  const std::int64_t row = blockIdx.x;
  logits += row * chunk.columns;
  float chunk_largest = -INFINITY;
  for (std::int64_t i = threadIdx.x; i < chunk.columns; i += kBlock) chunk_largest = fmaxf(chunk_largest, logits[i]);
  chunk_largest = block_max(chunk_largest);
  const float before = chunk.begin == 0 ? -INFINITY : largest[row];
  const float now = fmaxf(before, chunk_largest);
  float exponentials = 0;
  for (std::int64_t i = threadIdx.x; i < chunk.columns; i += kBlock) {
    exponentials += expf(logits[i] - now);
    if (keep != nullptr) keep_logit(keep + row * chunk.vocabulary + chunk.begin + i, logits[i], now);
  }
  exponentials = block_sum(exponentials);
  if (threadIdx.x == 0) {
    sum[row] = (chunk.begin == 0 ? 0.0f : sum[row] * expf(before - now)) + exponentials;
    largest[row] = now;
    if (counted_from != nullptr) counted_from[row] = now;
  }
  for (std::int32_t e = chunk.row_start[row] + threadIdx.x; e < chunk.row_start[row + 1]; e += kBlock) {
    const std::int64_t column = chunk.token[e] - chunk.begin;
    if (column >= 0 && column < chunk.columns) target_logit[e] = logits[column];
  }
}

// lse = largest + log(sum); log_prob holds target logits on entry.
__global__ void head_finish_kernel(const float* largest, const float* sum, const std::int32_t* row_start, float* lse,
                                   float* log_prob) {
  const std::int64_t row = blockIdx.x;
  const float value = largest[row] + logf(sum[row]);
  if (threadIdx.x == 0) lse[row] = value;
  for (std::int32_t e = row_start[row] + threadIdx.x; e < row_start[row + 1]; e += kWarp) log_prob[e] -= value;
}

// Kept bf16 logits become log-probs. One block a row; counted_from [chunks, rows].
__global__ void head_shift_kernel(bf16* kept, std::int64_t vocabulary, std::int64_t chunk_columns, std::int64_t rows,
                                  const float* counted_from, const float* lse) {
  const std::int64_t row = blockIdx.x;
  kept += row * vocabulary;
  for (std::int64_t i = threadIdx.x; i < vocabulary; i += kBlock) {
    store(kept + i, load(kept + i) + (counted_from[i / chunk_columns * rows + row] - lse[row]));
  }
}

// p(v) from a logit, or from what the forward pass keeps in bf16: a log-prob.
__device__ float probability(const float* logit, float lse) { return expf(*logit - lse); }
__device__ float probability(const bf16* log_prob, float) { return expf(load(log_prob)); }

// d_logits[row, v] = Σ_edges coefficient · (1[v = token] − p(v)), rounded once. One block a row. A token's edges are
// added by one thread in their order: siblings may want the same token.
template <typename L, typename D>
__global__ void head_gradient_kernel(const L* logits, std::int64_t stride, ChunkView chunk, const float* coefficient,
                                     const float* lse, D* d_logits) {
  const std::int64_t row = blockIdx.x;
  logits += row * stride;
  d_logits += row * chunk.columns;
  const std::int32_t first = chunk.row_start[row], last = chunk.row_start[row + 1];
  float total = 0;
  for (std::int32_t e = first; e < last; ++e) total += coefficient[e];
  for (std::int64_t i = threadIdx.x; i < chunk.columns; i += kBlock) {
    float gradient = -total * probability(logits + i, lse[row]);
    for (std::int32_t e = first; e < last; ++e) {
      if (chunk.token[e] - chunk.begin == i) gradient += coefficient[e];
    }
    store(d_logits + i, gradient);
  }
}

}  // namespace

void CudaBackend::head_forward(const Matrix& hidden, const Weight& head, const Edges& edges, float* log_prob,
                               float* lse, const Matrix& keep) {
  require_dense("head_forward", {hidden, keep});
  const Matrix weight = head.values();
  const std::int64_t rows = hidden.rows, vocabulary = weight.rows;
  if (rows == 0) return;
  const std::int64_t at_once = chunk_columns(head_chunk_bytes_, rows, vocabulary);
  const std::int64_t chunks = (vocabulary + at_once - 1) / at_once;
  const bool keep_log_probs = keep.data != nullptr && keep.dtype == DType::bf16;
  const Buffer logits = allocate(static_cast<std::size_t>(rows * at_once) * 4, MemoryUse::workspace);
  const Buffer starts =
      allocate(static_cast<std::size_t>(keep_log_probs ? rows * chunks : 1) * 4, MemoryUse::workspace);
  float* counted_from = static_cast<float*>(starts.data());
  const Buffer statistics = allocate(static_cast<std::size_t>(rows) * 8, MemoryUse::workspace);
  float* largest = static_cast<float*>(statistics.data());
  float* sum = largest + rows;
  for (std::int64_t begin = 0; begin < vocabulary; begin += at_once) {
    const std::int64_t columns = std::min(at_once, vocabulary - begin);
    const Matrix chunk{logits.data(), DType::f32, rows, columns};
    matmul(hidden, weight.row_range(begin, columns), chunk, {.transpose_b = true});
    with_type(keep.data == nullptr ? DType::f32 : keep.dtype, [&]<typename K>() {
      launch("head_statistics", head_statistics_kernel<K>, static_cast<unsigned>(rows), kBlock, stream_, chunk.f32(),
             ChunkView{begin, columns, vocabulary, edges.row_start, edges.token}, largest, sum, log_prob,
             static_cast<K*>(keep.data), keep_log_probs ? counted_from + begin / at_once * rows : nullptr);
    });
  }
  launch("head_finish", head_finish_kernel, static_cast<unsigned>(rows), kWarp, stream_, largest, sum, edges.row_start,
         lse, log_prob);
  if (!keep_log_probs) return;
  launch("head_shift", head_shift_kernel, static_cast<unsigned>(rows), kBlock, stream_, static_cast<bf16*>(keep.data),
         vocabulary, at_once, rows, counted_from, lse);
}

void CudaBackend::head_backward(const Matrix& hidden, const Weight& head, const Edges& edges, const float* coefficient,
                                const float* lse, const Matrix& kept, const Matrix& d_hidden, const Matrix& d_weight) {
  require_dense("head_backward", {hidden, kept, d_hidden, d_weight});
  const Matrix weight = head.values();
  const std::int64_t rows = hidden.rows, vocabulary = weight.rows;
  if (rows == 0) return;
  const std::int64_t at_once = chunk_columns(head_chunk_bytes_, rows, vocabulary);
  const std::size_t elements = static_cast<std::size_t>(rows * at_once);
  const bool again = kept.data == nullptr;
  const Buffer logits = allocate(again ? elements * 4 : 1, MemoryUse::workspace);
  const Buffer gradients = allocate(elements * size_of(hidden.dtype), MemoryUse::workspace);
  for (std::int64_t begin = 0; begin < vocabulary; begin += at_once) {
    const std::int64_t columns = std::min(at_once, vocabulary - begin);
    const Matrix part = weight.row_range(begin, columns);
    const Matrix recomputed{logits.data(), DType::f32, rows, columns};
    if (again) matmul(hidden, part, recomputed, {.transpose_b = true});
    const Matrix d_logits{gradients.data(), hidden.dtype, rows, columns};
    const ChunkView chunk{begin, columns, vocabulary, edges.row_start, edges.token};
    with_type(again ? DType::f32 : kept.dtype, [&]<typename L>() {
      with_type(hidden.dtype, [&]<typename D>() {
        const L* source = again ? static_cast<const L*>(logits.data()) : static_cast<const L*>(kept.data) + begin;
        launch("head_gradient", head_gradient_kernel<L, D>, static_cast<unsigned>(rows), kBlock, stream_, source,
               again ? columns : vocabulary, chunk, coefficient, lse, static_cast<D*>(d_logits.data));
      });
    });
    matmul(d_logits, part, d_hidden, {.accumulate = begin > 0});
    if (d_weight.data == nullptr) continue;
    matmul(d_logits, hidden, d_weight.row_range(begin, columns), {.transpose_a = true, .accumulate = true});
  }
}

}  // namespace tempora
