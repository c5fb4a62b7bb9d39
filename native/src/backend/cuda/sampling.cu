// One token a row. Tokens are ranked by logit, equal logits by id (the lowest first). What may be drawn (top-k, then
// top-p) is a threshold on that rank: a histogram says in which stretch of logits it lies, and the tokens of that
// stretch are compared with each other. Drawn is in order of ids.
#include "check.h"
#include "cuda_backend.h"
#include "sampling_cut.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kSlice = kBlock * kVectorFloats * 8;  // logits of a block that looks for the largest
constexpr int kHistogramSlice = 8 * kTile;          // ... that fills a histogram

// A slice of a row.
struct SliceSummary {
  Rank best;
  float largest;
  float exp_sum;  // Σ exp(logit - largest); NaN where a logit is NaN or +infinity
};

// Where the kernels find what.
struct Sampling {
  const float* logits;
  int vocabulary, slices, histogram_slices;
  bool aligned, top_k, top_p;
  SamplingOptions options;
  const double* uniforms;
  SliceSummary* summaries;  // [rows, slices]
  Mass* masses;             // [rows, histogram_slices, kBins] where there is a top p
  std::uint32_t* counts;    // the same where there is a top k
  std::int32_t* tokens;
  float* log_probs;
};

__device__ Rank warp_max(Rank value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// One block a slice.
__global__ void __launch_bounds__(kBlock) summarize_kernel(Sampling s) {
  __shared__ Rank bests[kBlock / kWarp];
  const int row = blockIdx.x / s.slices, slice = blockIdx.x % s.slices;
  const float* logits = s.logits + static_cast<std::int64_t>(row) * s.vocabulary;
  constexpr int kLoads = kSlice / kBlock / kVectorFloats;
  FourFloats fours[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int id = slice * kSlice + (i * kBlock + threadIdx.x) * kVectorFloats;
    fours[i] = load_four(logits, id, s.vocabulary, s.aligned);
  }
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLoads * kVectorFloats; ++i) largest = fmaxf(largest, fours[i / 4].at[i % 4]);
  largest = block_max(largest);
  const float origin = largest == -INFINITY ? 0.0f : largest;
  float sum = 0;
  int first = s.vocabulary;
#pragma unroll
  for (int i = kLoads * kVectorFloats - 1; i >= 0; --i) {
    const float logit = fours[i / 4].at[i % 4];
    sum += expf(logit - origin);
    if (logit == largest) first = slice * kSlice + (i / 4 * kBlock + threadIdx.x) * kVectorFloats + i % 4;
  }
  sum = block_sum(sum);
  const Rank best = warp_max(first < s.vocabulary ? rank_of(largest, first) : Rank{0});
  if (threadIdx.x % kWarp == 0) bests[threadIdx.x / kWarp] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  SliceSummary summary{bests[0], largest, sum};
  for (int warp = 1; warp < kBlock / kWarp; ++warp) summary.best = max(summary.best, bests[warp]);
  s.summaries[blockIdx.x] = summary;
}

__device__ float largest_of_row(const Sampling& s, int row) {
  float largest = -INFINITY;
  for (int i = 0; i < s.slices; ++i) largest = fmaxf(largest, s.summaries[row * s.slices + i].largest);
  return largest;
}

// log Σ exp(logit - largest); not finite where the logits are nothing to choose from.
__device__ double log_sum_of_row(const Sampling& s, int row, float largest) {
  double sum = 0;
  for (int i = 0; i < s.slices; ++i) {
    const SliceSummary& summary = s.summaries[row * s.slices + i];
    sum += static_cast<double>(summary.exp_sum) * static_cast<double>(expf(summary.largest - largest));
  }
  return log(sum);
}

// By one thread. A row without a finite largest logit, or with NaN, gets token -1.
__device__ void write_result(const Sampling& s, int row, float largest, int token) {
  const double log_sum = log_sum_of_row(s, row, largest);
  const bool broken = !isfinite(largest) || !isfinite(log_sum);
  s.tokens[row] = broken ? -1 : token;
  s.log_probs[row] = 0;
  if (broken) return;
  const float logit = s.logits[static_cast<std::int64_t>(row) * s.vocabulary + token];
  s.log_probs[row] = static_cast<float>(static_cast<double>(logit) - static_cast<double>(largest) - log_sum);
}

// One thread a row.
__global__ void choose_likeliest_kernel(Sampling s, int rows) {
  const int row = blockIdx.x * kWarp + threadIdx.x;
  if (row >= rows) return;
  Rank best = 0;
  for (int i = 0; i < s.slices; ++i) best = max(best, s.summaries[row * s.slices + i].best);
  write_result(s, row, largest_of_row(s, row), static_cast<int>(~static_cast<std::uint32_t>(best)));
}

__device__ SampledRow row_of(const Sampling& s, int row) {
  return {s.logits + static_cast<std::int64_t>(row) * s.vocabulary, s.vocabulary, s.aligned, 1 / s.options.temperature,
          largest_of_row(s, row)};
}

// One block a slice: the number and the mass of its tokens in each bin.
__global__ void __launch_bounds__(kThreads) histogram_kernel(Sampling s) {
  __shared__ std::uint32_t low[kBins], high[kBins], counts[kBins];
  const SampledRow row = row_of(s, blockIdx.x / s.histogram_slices);
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads) low[bin] = high[bin] = counts[bin] = 0;
  __syncthreads();
  const MassHistogram masses{low, high};
  const int begin = blockIdx.x % s.histogram_slices * kHistogramSlice;
  if (isfinite(row.largest)) {
    for_tokens(row, begin, min(row.vocabulary, begin + kHistogramSlice), [&](float logit, int) {
      if (isnan(logit)) return;
      const int bin = row.bin(logit);
      if (s.top_k) atomicAdd(counts + bin, 1u);
      if (s.top_p && bin < kBins - 1) masses.add(bin, row.mass(logit));
    });
  }
  __syncthreads();
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
    const std::int64_t to = static_cast<std::int64_t>(blockIdx.x) * kBins + bin;
    if (s.top_k) s.counts[to] = counts[bin];
    if (s.top_p) s.masses[to] = masses.sum(bin);
  }
}

// One block a row.
__global__ void __launch_bounds__(kThreads) draw_kernel(Sampling s) {
  __shared__ Scratch scratch;
  const int number = blockIdx.x;
  const SampledRow row = row_of(s, number);
  if (!isfinite(row.largest) || !isfinite(log_sum_of_row(s, number, row.largest))) {
    if (threadIdx.x == 0) write_result(s, number, row.largest, 0);
    return;
  }
  const std::int64_t histograms = static_cast<std::int64_t>(number) * s.histogram_slices * kBins;
  Rank cut = 0;
  Mass whole = 0;
  if (s.top_k) {
    const CutSearch search{row, scratch, false};
    cut = search.find(s.counts + histograms, s.histogram_slices, static_cast<Mass>(s.options.top_k), 0, 0);
    Mass running;
    if (s.top_p) whole = kept_masses(row, scratch, cut, pieces_of(row), &running);
  }
  if (s.top_p) {
    const CutSearch search{row, scratch, true};
    cut = search.find(s.masses + histograms, s.histogram_slices, 0, s.options.top_p, whole);
  }
  const int token = draw(row, scratch, cut, s.uniforms[number]);
  if (threadIdx.x == 0) write_result(s, number, row.largest, token);
}

}  // namespace

void CudaBackend::sample(const Matrix& logits, const SamplingOptions& options, const double* uniforms,
                         std::int32_t* tokens, float* log_probs) {
  require_dense("sample", {logits});
  const auto rows = static_cast<std::size_t>(logits.rows);
  if (rows == 0) return;
  Sampling s{};
  s.logits = logits.f32();
  s.vocabulary = static_cast<int>(logits.cols);
  s.slices = static_cast<int>(blocks_for(logits.cols, kSlice));
  s.histogram_slices = static_cast<int>(blocks_for(logits.cols, kHistogramSlice));
  s.aligned =
      reinterpret_cast<std::uintptr_t>(logits.data) % sizeof(FourFloats) == 0 && logits.cols % kVectorFloats == 0;
  s.options = options;
  s.uniforms = uniforms;
  const bool greedy = options.temperature <= 0;
  s.top_k = !greedy && options.top_k > 0 && options.top_k < logits.cols;
  s.top_p = !greedy && options.top_p < 1;
  const std::size_t bins = rows * static_cast<std::size_t>(s.histogram_slices) * kBins;
  const Buffer summaries =
      allocate(rows * static_cast<std::size_t>(s.slices) * sizeof(SliceSummary), MemoryUse::workspace);
  const Buffer masses = allocate(s.top_p ? bins * sizeof(Mass) : 1, MemoryUse::workspace);
  const Buffer counts = allocate(s.top_k ? bins * sizeof(std::uint32_t) : 1, MemoryUse::workspace);
  s.summaries = static_cast<SliceSummary*>(summaries.data());
  s.masses = static_cast<Mass*>(masses.data());
  s.counts = static_cast<std::uint32_t*>(counts.data());
  s.tokens = tokens;
  s.log_probs = log_probs;
  const auto blocks = static_cast<unsigned>(rows);
  launch("sample", summarize_kernel, blocks * static_cast<unsigned>(s.slices), kBlock, stream_, s);
  if (greedy) {
    launch("sample", choose_likeliest_kernel, blocks_for(logits.rows, kWarp), kWarp, stream_, s,
           static_cast<int>(rows));
  } else {
    if (s.top_k || s.top_p) {
      launch("sample", histogram_kernel, blocks * static_cast<unsigned>(s.histogram_slices), kThreads, stream_, s);
    }
    launch("sample", draw_kernel, blocks, kThreads, stream_, s);
  }
}

}  // namespace tempora
