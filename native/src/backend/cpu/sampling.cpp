// Choosing a token from a row of logits. Rows are independent, and what is drawn depends on the row and its uniform
// alone: the walk to the drawn token goes in order of token ids.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu_backend.h"
#include "kernels/sampling.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

struct Candidate {
  float logit;
  float weight;  // exp((logit - largest) / temperature), once weighed
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
      gather(top_k_threshold());
      keep_most_likely(static_cast<std::size_t>(options_.top_k));
    } else {
      gather(top_p_threshold());
    }
    weigh();
    if (options_.top_p < 1)
      keep_mass((top_k ? mass_of(candidates_.begin(), candidates_.end()) : mass_) * options_.top_p);
    std::vector<float> weights;
    weights.reserve(candidates_.size());
    for (const Candidate& candidate : candidates_) weights.push_back(candidate.weight);
    const double mass = mass_of(candidates_.begin(), candidates_.end());
    return candidates_[static_cast<std::size_t>(
                           walk(weights.data(), static_cast<std::int64_t>(weights.size()), uniform * mass))]
        .token;
  }

  static double mass_of(std::vector<Candidate>::const_iterator begin, std::vector<Candidate>::const_iterator end) {
    double mass = 0;
    for (; begin != end; ++begin) mass += begin->weight;
    return mass;
  }

  // A logit that at least top_k tokens reach: the top_k-th of the blocks' maxima.
  float top_k_threshold() const {
    const auto k = static_cast<std::size_t>(options_.top_k);
    if (k > blocks_) return -std::numeric_limits<float>::infinity();
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

  // Tokens whose logits reach the threshold, in order of their ids.
  void gather(float threshold) {
    for (std::size_t block = 0; block < blocks_; ++block) {
      if (maxima_[block] < threshold) continue;
      const std::int64_t first = static_cast<std::int64_t>(block) * kSamplingBlock;
      const std::int64_t end = std::min(vocab_, first + kSamplingBlock);
      for (std::int64_t token = first; token < end; ++token) {
        if (logits_[token] >= threshold) candidates_.push_back({logits_[token], 0, static_cast<std::int32_t>(token)});
      }
    }
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

  // The smallest set of most likely candidates whose weights reach `wanted`, found as nth_element does, by mass.
  void keep_mass(double wanted) {
    std::vector<Candidate> order = candidates_;
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

  void weigh() {
    std::vector<float> values;
    values.reserve(candidates_.size());
    for (const Candidate& candidate : candidates_) values.push_back(candidate.logit);
    kernels_.exp_weights(values.data(), static_cast<std::int64_t>(values.size()), largest_, scale_, values.data());
    for (std::size_t i = 0; i < values.size(); ++i) candidates_[i].weight = values[i];
  }

  const SamplingKernels& kernels_;
  const SamplingOptions& options_;
  const float* logits_;
  std::int64_t vocab_;
  std::size_t blocks_;
  std::vector<float> maxima_;  // of the blocks
  std::vector<float> sums_;    // of the blocks, at scale_
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
