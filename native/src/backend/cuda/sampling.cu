// One token a row. Tokens are ranked by logit, equal logits by id (the lowest first). Which may be drawn (top-k, then
// top-p) is a threshold on that rank, found bit by bit: no sorting.
#include <stdexcept>

#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kThreads = 1024;

using Rank = unsigned long long;

// Larger for likelier tokens; distinct. Adding 0 makes -0 the 0 that it equals.
__device__ Rank rank_of(float logit, int id) {
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);
  const std::uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Rank>(ordered) << 32 | static_cast<std::uint32_t>(~id);
}

// One row of logits, as all threads of a block see it.
struct RowView {
  const float* logits;
  int vocabulary;
  float temperature, largest;

  __device__ Rank rank(int id) const { return rank_of(logits[id], id); }
  // Proportional to the token's probability at the temperature.
  __device__ double weight(int id) const { return expf((logits[id] - largest) / temperature); }
};

// Σ term(id) over the vocabulary, in every thread.
template <typename Term>
__device__ double sum_over(const RowView& row, Term term) {
  double sum = 0;
  for (int id = threadIdx.x; id < row.vocabulary; id += kThreads) sum += term(id);
  return block_sum(sum);
}

// The largest rank at which the terms of the tokens from there up reach `wanted` and are more than nothing; 0 if they
// never do.
template <typename Term>
__device__ Rank find_threshold(const RowView& row, double wanted, Term term) {
  Rank threshold = 0;
  for (Rank bit = Rank{1} << 63; bit != 0; bit >>= 1) {
    const Rank candidate = threshold | bit;
    const double sum = sum_over(row, [&](int id) { return row.rank(id) >= candidate ? term(id) : 0.0; });
    if (sum >= wanted && sum > 0) threshold = candidate;
  }
  return threshold;
}

// The lowest rank that may be drawn.
__device__ Rank cut_off(const RowView& row, const SamplingOptions& options) {
  Rank cut = 0;
  if (options.top_k > 0 && options.top_k < row.vocabulary) {
    cut = find_threshold(row, options.top_k, [](int) { return 1.0; });
  }
  if (options.top_p >= 1) return cut;
  const auto mass = [&](int id) { return row.rank(id) >= cut ? row.weight(id) : 0.0; };
  return max(cut, find_threshold(row, sum_over(row, mass) * options.top_p, mass));
}

// Draws among the tokens of rank >= cut, in order of ids. Thread t sums its slice of the vocabulary; the slice that
// the target falls into is walked once more.
__device__ int draw(const RowView& row, Rank cut, double uniform) {
  __shared__ double before[kThreads + 1];
  __shared__ int chosen;
  const int slice = (row.vocabulary + kThreads - 1) / kThreads;
  const int begin = min(row.vocabulary, static_cast<int>(threadIdx.x) * slice);
  const int end = min(row.vocabulary, begin + slice);
  const auto mass = [&](int id) { return row.rank(id) >= cut ? row.weight(id) : 0.0; };
  double sum = 0;
  int last = -1;
  for (int id = begin; id < end; ++id) {
    sum += mass(id);
    if (mass(id) > 0) last = id;
  }
  before[threadIdx.x + 1] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    before[0] = 0;
    for (int i = 0; i < kThreads; ++i) before[i + 1] += before[i];
    chosen = -1;
  }
  __syncthreads();
  // A product rounded up to the whole mass would lie behind every slice.
  const double mass_of_all = before[kThreads];
  const double target = fmin(uniform * mass_of_all, nextafter(mass_of_all, 0.0));
  const bool mine = before[threadIdx.x] <= target && target < before[threadIdx.x + 1];
  if (mine) {
    double reached = before[threadIdx.x];
    for (int id = begin; id < end; ++id) {
      reached += mass(id);
      // Rounding may leave the target just behind the slice: then it is the slice's last candidate.
      if ((reached > target && mass(id) > 0) || id == last) {
        chosen = id;
        break;
      }
    }
  }
  __syncthreads();
  return chosen;
}

// The likeliest token, the lowest id among equals.
__device__ int likeliest(const RowView& row) {
  __shared__ Rank best[kThreads];
  Rank mine = 0;
  for (int id = threadIdx.x; id < row.vocabulary; id += kThreads) mine = max(mine, row.rank(id));
  best[threadIdx.x] = mine;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) best[threadIdx.x] = max(best[threadIdx.x], best[threadIdx.x + half]);
    __syncthreads();
  }
  return static_cast<int>(~static_cast<std::uint32_t>(best[0]));
}

// One block a row. A row without a finite largest logit, or with NaN, gets token -1.
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const float* all_logits, int vocabulary, SamplingOptions options, const double* uniforms,
                  std::int32_t* tokens, float* log_probs) {
  const std::int64_t row = blockIdx.x;
  const float* logits = all_logits + row * vocabulary;
  float largest = -INFINITY;
  int broken = 0;
  for (int id = threadIdx.x; id < vocabulary; id += kThreads) {
    largest = fmaxf(largest, logits[id]);
    broken |= isnan(logits[id]);
  }
  largest = block_max(largest);
  if (__syncthreads_or(broken) != 0 || !isfinite(largest)) {
    if (threadIdx.x == 0) tokens[row] = -1;
    return;
  }
  const RowView view{logits, vocabulary, options.temperature, largest};
  const double sum = sum_over(view, [&](int id) { return static_cast<double>(expf(logits[id] - view.largest)); });
  const int token = options.temperature <= 0 ? likeliest(view) : draw(view, cut_off(view, options), uniforms[row]);
  if (threadIdx.x != 0) return;
  tokens[row] = token;
  log_probs[row] = logits[token] - view.largest - static_cast<float>(log(sum));
}

}  // namespace

void CudaBackend::sample(const Matrix& logits, const SamplingOptions& options, const double* uniforms,
                         std::int32_t* tokens, float* log_probs) {
  require_dense("sample", {logits});
  const auto rows = static_cast<std::size_t>(logits.rows);
  if (rows == 0) return;
  const Buffer draws = upload(std::vector<double>(uniforms, uniforms + rows));
  const Buffer chosen = allocate(rows * sizeof(std::int32_t), MemoryUse::workspace);
  const Buffer scores = allocate(rows * sizeof(float), MemoryUse::workspace);
  launch("sample", sample_kernel, static_cast<unsigned>(rows), kThreads, stream_, logits.f32(),
         static_cast<int>(logits.cols), options, static_cast<const double*>(draws.data()),
         static_cast<std::int32_t*>(chosen.data()), static_cast<float*>(scores.data()));
  copy_out(tokens, chosen.data(), rows * sizeof(std::int32_t));
  copy_out(log_probs, scores.data(), rows * sizeof(float));
  for (std::size_t row = 0; row < rows; ++row) {
    if (tokens[row] < 0) throw std::domain_error("the logits of row " + std::to_string(row) + " are not finite");
  }
}

}  // namespace tempora
