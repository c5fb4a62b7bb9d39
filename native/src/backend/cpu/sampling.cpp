// Choosing a token from a row of logits. Rows are independent, and what is drawn depends on the row and its uniform
// alone: the walk to the drawn token goes in order of token ids.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu_backend.h"
#include "kernels/sampling.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Candidate {
  float logit;
  float weight;  // exp((logit - largest) / temperature)
  std::int32_t token;
};

// More likely first; the lower id among equals.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

class RowSampler {
 public:
  RowSampler(const SamplingKernels& kernels, const SamplingOptions& options, const float* logits, std::int64_t vocab)
      : kernels_(kernels),
        options_(options),
        logits_(logits),
        vocab_(vocab),
        blocks_(static_cast<std::size_t>((vocab + kSamplingBlock - 1) / kSamplingBlock)),
        maxima_(blocks_),
        sums_(blocks_) {}

  // False where the logits are no numbers to choose from.
  bool sample(double uniform, std::int32_t* token, float* log_prob) {
    kernels_.block_maxima(logits_, vocab_, maxima_.data());
    largest_ = *std::max_element(maxima_.begin(), maxima_.end());
    const double log_sum = std::log(exp_sums(1));
    if (!std::isfinite(log_sum) || !std::isfinite(largest_)) return false;
    if (options_.temperature <= 0) {
      *token = most_likely();
    } else {
      scale_ = 1 / options_.temperature;
      const bool top_k = options_.top_k > 0 && options_.top_k < vocab_;
      if (scale_ != 1) exp_sums(scale_);
      *token = top_k || options_.top_p < 1 ? draw_from_top(uniform, top_k) : draw_from_all(uniform);
    }
    *log_prob = static_cast<float>(static_cast<double>(logits_[*token]) - largest_ - log_sum);
    return true;
  }

 private:
  // Fills sums_ with Σ exp((logit - largest) · scale) and returns their total.
  double exp_sums(float scale) {
    kernels_.block_exp_sums(logits_, vocab_, largest_, scale, sums_.data());
    mass_ = 0;
    for (const float sum : sums_) mass_ += sum;
    return mass_;
  }

  std::int32_t most_likely() const {
    const auto block = std::find(maxima_.begin(), maxima_.end(), largest_) - maxima_.begin();
    std::int64_t token = block * kSamplingBlock;
    while (logits_[token] != largest_) ++token;
    return static_cast<std::int32_t>(token);
  }

  std::int32_t draw_from_all(double uniform) const {
    double left = uniform * mass_;
    std::size_t block = 0;
    while (block + 1 < blocks_ && left >= sums_[block]) left -= sums_[block++];
    // Rounding may lead past the end to blocks without mass.
    while (block > 0 && sums_[block] == 0) --block;
    const std::int64_t first = static_cast<std::int64_t>(block) * kSamplingBlock;
    const std::int64_t count = std::min(kSamplingBlock, vocab_ - first);
    float weights[kSamplingBlock];
    kernels_.exp_weights(logits_ + first, count, largest_, scale_, weights);
    return static_cast<std::int32_t>(first + walk(weights, count, left));
  }

  // The first index whose running sum passes `left`; the last one of any weight where rounding leaves none.
  static std::int64_t walk(const float* weights, std::int64_t count, double left) {
    std::int64_t last = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      if (weights[i] <= 0) continue;
      if (left < weights[i]) return i;
      left -= weights[i];
      last = i;
    }
    return last;
  }

  std::int32_t draw_from_top(double uniform, bool top_k) {
    if (top_k) {
      split_at(top_k_threshold(), kInfinity);
      keep_most_likely(static_cast<std::size_t>(options_.top_k));
      if (options_.top_p < 1) keep_mass(mass_of(candidates_.begin(), candidates_.end()) * options_.top_p);
    } else {
      keep_top_p(mass_ * options_.top_p);
    }
    return draw_from_kept(uniform);
  }

  // The smallest set of most likely tokens whose weights reach `wanted`. Where many tokens compete, a sample of them
  // says roughly where the last one lies, so that only those near it are compared.
  void keep_top_p(double wanted) {
    const float lowest = top_p_threshold();
    const auto [low, high] = around_top_p(lowest, mass_ - wanted);
    split_at(low, high);
    double above = 0;
    for (const double sum : sums_above_) above += sum;
    const bool guessed = low > lowest || high < kInfinity;
    if (guessed && (above >= wanted || above + mass_of(candidates_.begin(), candidates_.end()) < wanted)) {
      split_at(lowest, kInfinity);  // the sample misled
      above = 0;
    }
    keep_mass(wanted - above);
  }

  // Logits between which the least likely token of the top p should lie, where the tokens past it weigh `rest`: four
  // standard deviations of the sample's estimate to each side.
  std::pair<float, float> around_top_p(float lowest, double rest) const {
    constexpr std::int64_t kSample = 4096, kBins = 1024, kFew = 64;
    const std::pair<float, float> everything = {lowest, kInfinity};
    if (vocab_ < 2 * kSample) return everything;
    std::vector<float> logits(kSample), weights(kSample);
    for (std::int64_t i = 0; i < kSample; ++i) logits[i] = logits_[i * vocab_ / kSample];
    kernels_.exp_weights(logits.data(), kSample, largest_, scale_, weights.data());
    const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
    const float first = std::max(lowest, *least);
    const float bins_per_logit = static_cast<float>(kBins) / (*most - first);
    if (!std::isfinite(bins_per_logit) || bins_per_logit <= 0) return everything;
    double masses[kBins] = {}, squares[kBins] = {};
    double below = 0, below_squares = 0;
    std::int64_t reaching = 0;
    for (std::int64_t i = 0; i < kSample; ++i) {
      const double weight = weights[i];
      const bool reaches = logits[i] >= first;
      const std::int64_t bin =
          reaches ? std::min(kBins - 1, static_cast<std::int64_t>((logits[i] - first) * bins_per_logit)) : 0;
      (reaches ? masses[bin] : below) += weight;
      (reaches ? squares[bin] : below_squares) += weight * weight;
      reaching += reaches ? 1 : 0;
    }
    if (reaching < kFew) return everything;
    const auto edge = [&](std::int64_t bin) { return first + static_cast<float>(bin) / bins_per_logit; };
    const double wanted = rest * static_cast<double>(kSample) / static_cast<double>(vocab_);
    float low = lowest;
    for (std::int64_t bin = 0; bin < kBins; ++bin) {
      const double off = 4 * std::sqrt(below_squares + squares[bin]);
      if (below + masses[bin] + off < wanted) low = edge(bin);
      if (below - off > wanted) return {low, edge(bin)};
      below += masses[bin];
      below_squares += squares[bin];
    }
    return {low, kInfinity};
  }

  // In sums_above_ the weights of the blocks' tokens from `high` up, all of which are kept; in candidates_ those in
  // [low, high), in order of their ids.
  void split_at(float low, float high) {
    if (between_ == nullptr)
      between_ = std::make_unique_for_overwrite<std::int32_t[]>(static_cast<std::size_t>(vocab_));
    sums_above_.resize(blocks_);
    high_ = high;
    const std::int64_t count = kernels_.split(logits_, maxima_.data(), vocab_, {low, high, largest_, scale_},
                                              sums_above_.data(), between_.get());
    candidates_.clear();
    candidates_.reserve(static_cast<std::size_t>(count));
    std::vector<float> weights(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) weights[i] = logits_[between_[i]];
    kernels_.exp_weights(weights.data(), count, largest_, scale_, weights.data());
    for (std::int64_t i = 0; i < count; ++i) {
      candidates_.push_back({logits_[between_[i]], weights[i], between_[i]});
    }
  }

  // In order of token ids, over the tokens from high_ up and the candidates that are left.
  std::int32_t draw_from_kept(double uniform) {
    std::vector<double> sums = sums_above_;
    for (const Candidate& candidate : candidates_) sums[candidate.token / kSamplingBlock] += candidate.weight;
    double mass = 0;
    for (const double sum : sums) mass += sum;
    double left = uniform * mass;
    std::size_t block = 0;
    while (block + 1 < blocks_ && left >= sums[block]) left -= sums[block++];
    while (block > 0 && sums[block] == 0) --block;
    const std::int64_t first = static_cast<std::int64_t>(block) * kSamplingBlock;
    const std::int64_t count = std::min(kSamplingBlock, vocab_ - first);
    float weights[kSamplingBlock];
    kernels_.exp_weights(logits_ + first, count, largest_, scale_, weights);
    for (std::int64_t i = 0; i < count; ++i) weights[i] = logits_[first + i] >= high_ ? weights[i] : 0;
    for (const Candidate& candidate : candidates_) {
      if (candidate.token >= first && candidate.token < first + count)
        weights[candidate.token - first] = candidate.weight;
    }
    return static_cast<std::int32_t>(first + walk(weights, count, left));
  }

  static double mass_of(std::vector<Candidate>::const_iterator begin, std::vector<Candidate>::const_iterator end) {
    double mass = 0;
    for (; begin != end; ++begin) mass += begin->weight;
    return mass;
  }

  // A logit that at least top_k tokens reach: the top_k-th of the blocks' maxima.
  float top_k_threshold() const {
    const auto k = static_cast<std::size_t>(options_.top_k);
    if (k > blocks_) return -kInfinity;
    std::vector<float> maxima = maxima_;
    std::nth_element(maxima.begin(), maxima.begin() + static_cast<std::ptrdiff_t>(k - 1), maxima.end(),
                     std::greater<>());
    return maxima[k - 1];
  }

  // Tokens with less than (1 - top_p) / V of the mass are not needed: all of them together have less than 1 - top_p.
  // Half of that, so that rounding does no harm.
  float top_p_threshold() const {
    const double weight = 0.5 * (1 - static_cast<double>(options_.top_p)) * mass_ / static_cast<double>(vocab_);
    return static_cast<float>(largest_ + std::log(weight) * static_cast<double>(options_.temperature));
  }

  void keep_until(const Candidate& last) {
    std::erase_if(candidates_, [&](const Candidate& candidate) { return before(last, candidate); });
  }

  void keep_most_likely(std::size_t count) {
    if (candidates_.size() <= count) return;
    std::vector<Candidate> order = candidates_;
    const auto last = order.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(order.begin(), last, order.end(), before);
    keep_until(*last);
  }

  // The smallest set of most likely candidates whose weights reach `wanted`: by histograms down to one narrow bin, and
  // among equals as nth_element does, by mass.
  void keep_mass(double wanted) {
    std::vector<Candidate> order = candidates_;
    while (order.size() > 256 && keep_bin(&order, &wanted)) continue;
    auto begin = order.begin(), end = order.end();
    while (end - begin > 16) {
      const auto middle = begin + (end - begin) / 2;
      std::nth_element(begin, middle, end, before);
      const double mass = mass_of(begin, middle);
      if (mass >= wanted) {
        end = middle;
      } else {
        wanted -= mass;
        begin = middle;
      }
    }
    std::sort(begin, end, before);
    auto last = begin;
    for (wanted -= last->weight; wanted > 0 && last + 1 != end; wanted -= last->weight) ++last;
    keep_until(*last);
  }

  // Leaves of `order` the bin in which the mass from the most likely down reaches `wanted`, and of `wanted` what is
  // left for that bin. False where all are in one.
  static bool keep_bin(std::vector<Candidate>* order, double* wanted) {
    constexpr std::int64_t kBins = 256;
    const auto by_logit = [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; };
    const auto [least, most] = std::minmax_element(order->begin(), order->end(), by_logit);
    const float top = most->logit;
    const float bins_per_logit = static_cast<float>(kBins) / (top - least->logit);
    if (!std::isfinite(bins_per_logit) || bins_per_logit == 0) return false;
    const auto bin_of = [=](const Candidate& candidate) {
      return std::min(kBins - 1, static_cast<std::int64_t>((top - candidate.logit) * bins_per_logit));
    };
    double masses[kBins] = {};
    for (const Candidate& candidate : *order) masses[bin_of(candidate)] += candidate.weight;
    std::int64_t bin = 0;
    for (; bin + 1 < kBins && masses[bin] < *wanted; ++bin) *wanted -= masses[bin];
    return std::erase_if(*order, [=](const Candidate& candidate) { return bin_of(candidate) != bin; }) > 0;
  }

  const SamplingKernels& kernels_;
  const SamplingOptions& options_;
  const float* logits_;
  std::int64_t vocab_;
  std::size_t blocks_;
  std::vector<float> maxima_;       // of the blocks
  std::vector<float> sums_;         // of the blocks, at scale_
  std::vector<double> sums_above_;  // of the blocks: tokens that are kept for certain, those from high_ up
  float high_ = kInfinity;
  std::unique_ptr<std::int32_t[]> between_;  // [vocab] scratch
  std::vector<Candidate> candidates_;
  double mass_ = 0;
  float largest_ = 0;
  float scale_ = 1;
};

}  // namespace

void CpuBackend::sample(const Matrix& logits, const SamplingOptions& options, const double* uniforms,
                        std::int32_t* tokens, float* log_probs) {
  require_dense("sample", {logits});
  require(logits.dtype == DType::f32 && (logits.rows == 0 || logits.cols > 0), "sample: logits are f32");
  const SamplingKernels& kernels = sampling_kernels_for(isa_);
  std::atomic<std::int64_t> bad_row{-1};
  std::atomic<bool> no_memory{false};
  parallel_items(threads_, logits.rows, [&](std::int64_t row, int) {
    try {
      RowSampler sampler(kernels, options, logits.f32() + row * logits.cols, logits.cols);
      if (!sampler.sample(uniforms[row], tokens + row, log_probs + row)) bad_row = row;
    } catch (const std::bad_alloc&) {
      no_memory = true;
    }
  });
  if (no_memory) throw OutOfMemory("the system has no memory for sampling");
  if (bad_row >= 0) throw std::domain_error("the logits of row " + std::to_string(bad_row) + " are not finite");
}

}  // namespace tempora
