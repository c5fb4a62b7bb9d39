#include "top_p_estimate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tempora {
namespace {

constexpr std::int32_t kBins = 512;
constexpr std::int64_t kFew = 64;
constexpr int kCopies = 2;  // so that neighbours in one bin do not wait for each other

// Σ of weights and of their squares.
struct BinSums {
  float weights, squares;
};

}  // namespace

LogitRange estimate_top_p(const SamplingKernels& kernels, const SampledLogits& sample, float lowest, double rest) {
  const LogitRange everything = {lowest, std::numeric_limits<float>::infinity()};
  const auto [least, most] = kernels.range(sample.logits, sample.size);
  const float first = std::max(lowest, least);
  const float bins_per_logit = static_cast<float>(kBins) / (most - first);
  if (!std::isfinite(bins_per_logit) || bins_per_logit <= 0) return everything;
  BinSums sums[kBins + 2][kCopies] = {};  // below `first`, and of the bins from there up
  std::int32_t bins[kMostSampled];
  kernels.bins(sample.logits, sample.size, {first, bins_per_logit, -1, 1, kBins + 1}, bins);
  std::int64_t reaching = 0;
  for (std::int64_t i = 0; i < sample.size; ++i) {
    const float weight = sample.weights[i];
    BinSums& of = sums[bins[i]][i % kCopies];
    of.weights += weight;
    of.squares += weight * weight;
    reaching += bins[i] >= 1 ? 1 : 0;
  }
  if (reaching < kFew) return everything;
  const auto edge = [&](std::int64_t bin) { return first + static_cast<float>(bin - 1) / bins_per_logit; };
  const double wanted = rest * sample.share;
  double below = 0, below_squares = 0, heaviest = 0;
  // Whether `wanted` lies that far above (direction 1) or below what was added up. A logit more might have been
  // sampled: nothing is known where none was.
  const auto is_far = [&](double direction) {
    const double variance = below_squares + heaviest * heaviest - below * below / static_cast<double>(sample.size);
    const double off = (wanted - below) * direction;
    return below > 0 && off > 0 && off * off > 9 * variance;
  };
  float low = lowest;
  for (std::int64_t bin = 0; bin <= kBins; ++bin) {
    if (bin > 0 && is_far(-1)) return {low, edge(bin)};
    for (const BinSums& of : sums[bin]) {
      below += static_cast<double>(of.weights);
      below_squares += static_cast<double>(of.squares);
      if (of.weights > 0) heaviest = std::max(heaviest, static_cast<double>(of.squares / of.weights));
    }
    if (is_far(1)) low = edge(bin + 1);
  }
  return {low, everything.high};
}

}  // namespace tempora
