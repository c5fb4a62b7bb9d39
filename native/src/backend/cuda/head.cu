// The log-prob head in chunks of the vocabulary: logits of one chunk at a time, an online log-sum-exp over the chunks
// in the forward pass, exact coefficients in the backward pass.
//
// Kept bf16 logits count from the largest logit that their row had had up to the end of their chunk (in bf16; the CPU
// keeps log-probs with 10 bits of fraction): a likely token's is then nearly exact. Those largest ones lie behind them.
#include <algorithm>

#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"
#include "vectors.cuh"

namespace tempora {
namespace {

using namespace device;

std::int64_t chunk_columns(std::int64_t chunk_bytes, std::int64_t rows, std::int64_t vocabulary) {
  const std::int64_t columns = chunk_bytes / 4 / rows / 256 * 256;
  return std::clamp<std::int64_t>(columns, std::min<std::int64_t>(256, vocabulary), vocabulary);
}

// Columns that a thread takes at once, where rows are whole ones of them.
constexpr int kColumns = 8;

// The part of the vocabulary that a launch sees, and where its edges lie.
struct ChunkView {
  std::int64_t begin, columns, vocabulary;
  const std::int32_t* row_start;
  const std::int32_t* token;
};

// One block a row: (largest, sum) of exp over the chunks so far; picks the logits of the row's targets. Where `keep` is
// not null it gets the logits (f32) or what they are above the row's largest so far (bf16), which `counted_from` gets.
template <typename K, int N>
__global__ void head_statistics_kernel(const float* logits, ChunkView chunk, float* largest, float* sum,
                                       float* target_logit, K* keep, float* counted_from) {
  const std::int64_t row = blockIdx.x;
  logits += row * chunk.columns;
  float values[N];
  float chunk_largest = -INFINITY;
  for (std::int64_t i = threadIdx.x * N; i < chunk.columns; i += kBlock * N) {
    load_vector(logits + i, values);
    for (const float value : values) chunk_largest = fmaxf(chunk_largest, value);
  }
  chunk_largest = block_max(chunk_largest);
  const float before = chunk.begin == 0 ? -INFINITY : largest[row];
  const float now = fmaxf(before, chunk_largest);
  K* kept = keep == nullptr ? nullptr : keep + row * chunk.vocabulary + chunk.begin;
  const float base = counted_from == nullptr ? 0.0f : now;
  float exponentials = 0;
  for (std::int64_t i = threadIdx.x * N; i < chunk.columns; i += kBlock * N) {
    load_vector(logits + i, values);
    for (float& value : values) {
      exponentials += expf(value - now);
      value -= base;
    }
    if (kept != nullptr) store_vector(kept + i, values);
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

// Logits of some columns for the backward pass: computed again, or what the forward pass kept.
template <typename L>
struct LogitsView {
  const L* logits;
  std::int64_t stride;
  // Of kept bf16 logits [chunks, rows]: what those of a chunk of the forward pass count from.
  const float* counted_from;
  std::int64_t chunk_columns, rows;
};

// d_logits[row, v] = Σ_edges coefficient · (1[v = token] − p(v)), rounded once; may be where the logits are. One block
// a row and kGradientColumns columns. A token's edges are added by one thread in their order: siblings may want the
// same token.
constexpr std::int64_t kGradientColumns = 8 * kBlock * kColumns;

template <typename L, typename D, int N>
__global__ void head_gradient_kernel(LogitsView<L> view, ChunkView chunk, const float* coefficient, const float* lse,
                                     D* d_logits, std::int64_t d_stride) {
  const std::int64_t row = blockIdx.x;
  const std::int32_t first = chunk.row_start[row], last = chunk.row_start[row + 1];
  float total = 0;
  for (std::int32_t e = first; e < last; ++e) total += coefficient[e];
  const std::int64_t begin = blockIdx.y * kGradientColumns;
  const std::int64_t end = begin + kGradientColumns < chunk.columns ? begin + kGradientColumns : chunk.columns;
  const float row_lse = lse[row];
  for (std::int64_t i = begin + threadIdx.x * N; i < end; i += kBlock * N) {
    float values[N];
    load_vector(view.logits + row * view.stride + i, values);
    const float above =
        view.counted_from == nullptr ? 0.0f : view.counted_from[i / view.chunk_columns * view.rows + row];
    for (float& value : values) value = -total * expf(value + (above - row_lse));
    for (std::int32_t e = first; e < last; ++e) {
      const std::int64_t at = chunk.token[e] - chunk.begin - i;
      if (at < 0 || at >= N) continue;
      const float own = coefficient[e];
#pragma unroll
      for (int k = 0; k < N; ++k) values[k] += at == k ? own : 0.0f;
    }
    store_vector(d_logits + row * d_stride + i, values);
  }
}

// Where kept bf16 logits end, and the numbers begin that they count from.
std::int64_t kept_bytes(std::int64_t rows, std::int64_t vocabulary) { return (rows * vocabulary * 2 + 15) / 16 * 16; }

float* counted_from_of(const Matrix& kept) {
  if (kept.data == nullptr || kept.dtype != DType::bf16) return nullptr;
  return reinterpret_cast<float*>(static_cast<char*>(kept.data) + kept_bytes(kept.rows, kept.cols));
}

// Calls work.operator()<N>() with the numbers that a thread takes at once.
template <typename Work>
void with_vectors(std::int64_t vocabulary, Work work) {
  if (vocabulary % kColumns == 0) {
    work.template operator()<kColumns>();
  } else {
    work.template operator()<1>();
  }
}

}  // namespace

std::size_t CudaBackend::kept_logits_bytes(std::int64_t rows, std::int64_t vocabulary, DType dtype) const {
  if (dtype == DType::f32) return static_cast<std::size_t>(rows * vocabulary) * 4;
  const std::int64_t at_once = chunk_columns(head_chunk_bytes_, std::max<std::int64_t>(1, rows), vocabulary);
  const std::int64_t chunks = (vocabulary + at_once - 1) / at_once;
  return static_cast<std::size_t>(kept_bytes(rows, vocabulary) + rows * chunks * 4);
}

void CudaBackend::head_forward(const Matrix& hidden, const Weight& head, const Edges& edges, float* log_prob,
                               float* lse, const Matrix& keep) {
  require_dense("head_forward", {hidden, keep});
  const Matrix weight = head.values();
  const std::int64_t rows = hidden.rows, vocabulary = weight.rows;
  if (rows == 0) return;
  const std::int64_t at_once = chunk_columns(head_chunk_bytes_, rows, vocabulary);
  const Buffer logits = allocate(static_cast<std::size_t>(rows * at_once) * 4, MemoryUse::workspace);
  const Buffer statistics = allocate(static_cast<std::size_t>(rows) * 8, MemoryUse::workspace);
  float* largest = static_cast<float*>(statistics.data());
  float* sum = largest + rows;
  float* counted_from = counted_from_of(keep);
  for (std::int64_t begin = 0; begin < vocabulary; begin += at_once) {
    const std::int64_t columns = std::min(at_once, vocabulary - begin);
    const Matrix chunk{logits.data(), DType::f32, rows, columns};
    matmul(hidden, weight.row_range(begin, columns), chunk, {.transpose_b = true});
    with_type(keep.data == nullptr ? DType::f32 : keep.dtype, [&]<typename K>() {
      with_vectors(vocabulary, [&]<int N>() {
        launch("head_statistics", head_statistics_kernel<K, N>, static_cast<unsigned>(rows), kBlock, stream_,
               chunk.f32(), ChunkView{begin, columns, vocabulary, edges.row_start, edges.token}, largest, sum, log_prob,
               static_cast<K*>(keep.data), counted_from == nullptr ? nullptr : counted_from + begin / at_once * rows);
      });
    });
  }
  launch("head_finish", head_finish_kernel, static_cast<unsigned>(rows), kWarp, stream_, largest, sum, edges.row_start,
         lse, log_prob);
}

// d_logits of some columns, of the type of the hidden rows.
template <typename L>
void CudaBackend::head_gradient(const Matrix& logits, const float* counted_from, const Edges& edges, std::int64_t begin,
                                std::int64_t vocabulary, const float* coefficient, const float* lse,
                                const Matrix& d_logits) {
  const std::int64_t at_once = chunk_columns(head_chunk_bytes_, logits.rows, vocabulary);
  const LogitsView<L> view{static_cast<const L*>(logits.data), logits.row_stride(), counted_from, at_once, logits.rows};
  const ChunkView chunk{begin, logits.cols, vocabulary, edges.row_start, edges.token};
  const dim3 grid(static_cast<unsigned>(logits.rows), blocks_for(logits.cols, kGradientColumns));
  with_type(d_logits.dtype, [&]<typename D>() {
    with_vectors(vocabulary, [&]<int N>() {
      launch("head_gradient", head_gradient_kernel<L, D, N>, grid, kBlock, stream_, view, chunk, coefficient, lse,
             static_cast<D*>(d_logits.data), d_logits.row_stride());
    });
  });
}

void CudaBackend::head_backward(const Matrix& hidden, const Weight& head, const Edges& edges, const float* coefficient,
                                const float* lse, const Matrix& kept, const Matrix& d_hidden, const Matrix& d_weight,
                                bool accumulate) {
  require_dense("head_backward", {hidden, kept, d_hidden, d_weight});
  const Matrix weight = head.values();
  const std::int64_t rows = hidden.rows, vocabulary = weight.rows;
  if (rows == 0) return;
  // What was kept becomes the gradients, of the whole vocabulary at once, where products may read it as it lies.
  const bool in_place = kept.data != nullptr && kept.dtype == hidden.dtype && vocabulary % kColumns == 0;
  const std::int64_t at_once = in_place ? vocabulary : chunk_columns(head_chunk_bytes_, rows, vocabulary);
  const std::size_t elements = static_cast<std::size_t>(rows * at_once);
  const bool again = kept.data == nullptr;
  const Buffer logits = allocate(again ? elements * 4 : 1, MemoryUse::workspace);
  const Buffer gradients = allocate(in_place ? 1 : elements * size_of(hidden.dtype), MemoryUse::workspace);
  const float* counted_from = counted_from_of(kept);
  for (std::int64_t begin = 0; begin < vocabulary; begin += at_once) {
    const std::int64_t columns = std::min(at_once, vocabulary - begin);
    const Matrix part = weight.row_range(begin, columns);
    const Matrix recomputed{logits.data(), DType::f32, rows, columns};
    if (again) matmul(hidden, part, recomputed, {.transpose_b = true});
    const Matrix source = again ? recomputed : kept.column_range(begin, columns);
    const Matrix d_logits = in_place ? kept : Matrix{gradients.data(), hidden.dtype, rows, columns};
    const float* chunk_counted_from = counted_from == nullptr ? nullptr : counted_from + begin / at_once * rows;
    with_type(source.dtype, [&]<typename L>() {
      head_gradient<L>(source, chunk_counted_from, edges, begin, vocabulary, coefficient, lse, d_logits);
    });
    matmul(d_logits, part, d_hidden, {.accumulate = begin > 0});
    if (d_weight.data == nullptr) continue;
    matmul(d_logits, hidden, d_weight.row_range(begin, columns), {.transpose_a = true, .accumulate = accumulate});
  }
}

}  // namespace tempora
