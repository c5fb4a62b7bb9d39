// Choosing a token from a row of logits. Rows are independent, and what is drawn depends on the row and its uniform
// alone: the walk to the drawn token goes in order of token ids.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "cpu_backend.h"
#include "kernels/sampling.h"
#include "parallel.h"
#include "thread_scratch.h"
#include "top_p_estimate.h"
#include "views.h"

namespace tempora {
namespace {

constexpr std::int64_t kWalkedAtOnce = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Candidate {
  float logit;
  float weight;
  std::int64_t index;  // among those that are near
};

// More likely first; the lower index among equals.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.index < b.index;
}

// Tokens whose logits lie in a range, in order of their ids, in scratch with room for all.
struct Near {
  float* logits;
  float* weights;
  std::int64_t count = 0;
  LogitRange range = {};
  float least = 0, most = 0;  // of them

  static constexpr int kArrays = 2;
  Near(float* scratch, std::int64_t vocab) : logits(scratch), weights(logits + vocab + kSamplingSlack) {}
  Candidate at(std::int64_t i) const { return {logits[i], weights[i], i}; }
};

class RowSampler {
 public:
  RowSampler(const SamplingKernels& kernels, const SamplingOptions& options, const float* logits, std::int64_t vocab,
             float* scratch)
      : kernels_(kernels),
        options_(options),
        logits_(logits),
        vocab_(vocab),
        blocks_(static_cast<std::size_t>((vocab + kSamplingBlock - 1) / kSamplingBlock)),
        maxima_(blocks_),
        sums_(blocks_),
        kept_sums_(static_cast<std::size_t>((vocab + kSamplingSpan - 1) / kSamplingSpan)),
        near_counts_(kept_sums_.size()),
        near_(scratch, vocab),
        weights_(scratch + Near::kArrays * (vocab + kSamplingSlack)) {}

  static std::int64_t scratch_floats(std::int64_t vocab) {
    return Near::kArrays * (vocab + kSamplingSlack) + vocab + kSamplingBlock;
  }

  // False where the logits are no numbers to choose from.
  bool sample(double uniform, std::int32_t* token, float* log_prob) {
    const bool top_k = options_.top_k > 0 && options_.top_k < vocab_;
    const bool from_top = options_.temperature > 0 && (top_k || options_.top_p < 1);
    // Between the ends of what weights can be counted with.
    const float inverse = options_.temperature > 0 ? std::clamp(1 / options_.temperature, 1e-37f, 1e38f) : 1;
    const float guess = kernels_.glimpse(logits_, vocab_);
    weigh(guess, inverse, from_top);
    if (sampling_shift(guess, largest_, inverse) != guess) weigh(largest_, inverse, from_top);
    const double plain_sum = scaled_ ? total(plain_sums_) : mass_;
    if (!std::isfinite(plain_sum) || !std::isfinite(mass_) || !std::isfinite(largest_)) return false;
    if (options_.temperature <= 0) {
      *token = most_likely();
    } else {
      *token = from_top ? draw_from_top(uniform, top_k) : draw_from_all(uniform);
    }
    // Rounding may make a token likelier than all.
    const double log_prob_of =
        static_cast<double>(logits_[*token]) - static_cast<double>(plain_.shift) - std::log(plain_sum);
    *log_prob = static_cast<float>(std::min(log_prob_of, 0.0));
    return true;
  }

 private:
  // Weights at temperature 1 and at this one, counted from `shift`: of blocks, and of each token if some are left out.
  void weigh(float shift, float inverse, bool from_top) {
    plain_ = sampling_scale(shift, 1);
    scale_ = sampling_scale(shift, inverse);
    scaled_ = inverse != 1;
    if (scaled_) plain_sums_.resize(blocks_);
    const std::int64_t every = (vocab_ / kSamplingGroup * kSampledOfGroup + kMostSampled - 1) / kMostSampled;
    sampled_ = kernels_.weigh(logits_, vocab_,
                              {plain_,
                               scale_,
                               maxima_.data(),
                               scaled_ ? plain_sums_.data() : nullptr,
                               sums_.data(),
                               from_top ? weights_ : nullptr,
                               {sampled_logits_, sampled_weights_, std::max<std::int64_t>(every, 1)}});
    mass_ = total(sums_);
    largest_ = kernels_.range(maxima_.data(), static_cast<std::int64_t>(blocks_)).most;
  }

  double total(const std::vector<float>& sums) const {
    return kernels_.total(sums.data(), static_cast<std::int64_t>(sums.size()));
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
    kernels_.weights(logits_ + first, count, scale_, weights);
    return static_cast<std::int32_t>(first + walk(weights, count, left));
  }

  // The first index whose running sum passes `left`; the last one of any weight where rounding leaves none.
  std::int64_t walk(const float* weights, std::int64_t count, double left) const {
    std::int64_t i = 0;
    for (; i + kWalkedAtOnce < count; i += kWalkedAtOnce) {
      const double sum = kernels_.total(weights + i, kWalkedAtOnce);
      if (left < sum) break;
      left -= sum;
    }
    for (; i < count; ++i) {
      if (left < static_cast<double>(weights[i])) return i;
      left -= static_cast<double>(weights[i]);
    }
    for (i = count - 1; i > 0 && weights[i] <= 0;) --i;
    return i;
  }

  std::int32_t draw_from_top(double uniform, bool top_k) {
    if (top_k) {
      split_at({top_k_threshold(), kInfinity});
      weigh_near();
      const double mass = keep_most_likely(static_cast<std::int64_t>(options_.top_k));
      const Candidate last = last_;
      if (options_.top_p < 1) keep_mass(mass * options_.top_p);
      // Rounding may lead past the end to tokens without weight.
      if (before(last, last_)) last_ = last;
      add_kept_near();
    } else {
      keep_top_p(mass_ * options_.top_p);
    }
    return draw_from_kept(uniform);
  }

  // The smallest set of most likely tokens whose weights reach `wanted`. Where many tokens compete, a sample of them
  // says roughly where the last one lies, so that only those near it are compared.
  void keep_top_p(double wanted) {
    const float lowest = top_p_threshold();
    const LogitRange likely = around_top_p(lowest, mass_ - wanted);
    if ((likely.low > lowest || likely.high < kInfinity) && cut_between(likely, wanted, true)) return;
    cut_between({lowest, kInfinity}, wanted, false);
  }

  LogitRange around_top_p(float lowest, double rest) const {
    const double share = static_cast<double>(sampled_) / static_cast<double>(vocab_);
    return estimate_top_p(kernels_, {sampled_logits_, sampled_weights_, sampled_, share}, lowest, rest);
  }

  // Keeps the tokens above `range` and of those in it the most likely that `wanted` needs. False where the last one
  // must lie elsewhere, which only a guess can cause.
  bool cut_between(LogitRange range, double wanted, bool guessed) {
    split_at(range);
    for (const double sum : kept_sums_) wanted -= sum;
    if (guessed && (wanted <= 0 || near_.count == 0)) return false;
    if (near_.least == near_.most) return keep_tied(wanted) || !guessed;
    weigh_near();
    if (!keep_mass(wanted) && guessed) return false;
    add_kept_near();
    return true;
  }

  // The first of near_, which are all alike, that reach `wanted`; false, and all of them, where they don't.
  bool keep_tied(double wanted) {
    kernels_.weights(near_.logits, 1, scale_, near_.weights);
    const auto weight = static_cast<double>(near_.weights[0]);
    const double needed = std::ceil(wanted / weight);
    auto left = static_cast<std::int64_t>(std::clamp(needed, 1.0, static_cast<double>(near_.count)));
    last_ = {near_.logits[0], near_.weights[0], left - 1};
    for (std::size_t span = 0; left > 0; ++span) {
      const std::int64_t kept = std::min<std::int64_t>(near_counts_[span], left);
      kept_sums_[span] += static_cast<double>(kept) * weight;
      left -= kept;
    }
    return needed <= static_cast<double>(near_.count);
  }

  // In kept_sums_ the weights of the spans' tokens above the range, in near_ those in it, yet without weights.
  void split_at(LogitRange range) {
    near_.range = range;
    near_.count = kernels_.split({logits_, maxima_.data(), weights_, vocab_}, range.low, range.high, kept_sums_.data(),
                                 near_counts_.data(), near_.logits);
    const auto [least, most] = kernels_.range(near_.logits, near_.count);
    near_.least = least;
    near_.most = most;
  }

  void weigh_near() { kernels_.weights(near_.logits, near_.count, scale_, near_.weights); }

  // What last_ keeps of near_ joins kept_sums_.
  void add_kept_near() {
    std::int64_t first = 0;
    for (std::size_t span = 0; span < kept_sums_.size(); first += near_counts_[span++]) {
      kept_sums_[span] += kernels_.keep_until(near_.logits + first, near_counts_[span], first, last_.logit, last_.index,
                                              near_.weights + first);
    }
  }

  // In order of token ids, over last_ and those before it.
  std::int32_t draw_from_kept(double uniform) const {
    double mass = 0;
    for (const double sum : kept_sums_) mass += sum;
    double left = uniform * mass;
    std::size_t span = 0;
    while (span + 1 < kept_sums_.size() && left >= kept_sums_[span]) left -= kept_sums_[span++];
    while (span > 0 && kept_sums_[span] == 0) --span;
    const std::int64_t first = static_cast<std::int64_t>(span) * kSamplingSpan;
    const std::int64_t count = std::min(kSamplingSpan, vocab_ - first);
    float weights[kSamplingSpan];
    std::copy_n(weights_ + first, count, weights);
    kernels_.keep_until(logits_ + first, count, first, last_.logit, last_token(), weights);
    return static_cast<std::int32_t>(first + walk(weights, count, left));
  }

  std::int64_t last_token() const {
    std::int64_t left = last_.index, token = 0;
    for (std::size_t span = 0; left >= near_counts_[span]; ++span) {
      left -= near_counts_[span];
      token += kSamplingSpan;
    }
    // Without a branch on each logit, which cannot be foreseen.
    for (;; ++token) {
      const bool is_near = (logits_[token] >= near_.range.low) & (logits_[token] < near_.range.high);
      left -= is_near ? 1 : 0;
      if (left < 0) return token;
    }
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
    return static_cast<float>(static_cast<double>(scale_.shift) +
                              std::log(weight) * static_cast<double>(options_.temperature));
  }

  // Leaves weights to the `count` most likely in near_ alone. Returns their mass.
  double keep_most_likely(std::int64_t count) {
    std::vector<Candidate> order(static_cast<std::size_t>(near_.count));
    for (std::int64_t i = 0; i < near_.count; ++i) order[static_cast<std::size_t>(i)] = near_.at(i);
    const auto last = order.begin() + static_cast<std::ptrdiff_t>(std::min(count, near_.count) - 1);
    std::nth_element(order.begin(), last, order.end(), before);
    last_ = *last;
    return kernels_.keep_until(near_.logits, near_.count, 0, last_.logit, last_.index, near_.weights);
  }

  // Finds the last of the most likely in near_ whose weights reach `wanted`: by histograms down to one narrow bin, and
  // among equals as nth_element does, by mass. False where all of them do not reach it.
  bool keep_mass(double wanted) {
    std::vector<Candidate> order;
    const bool reached = first_bin(&wanted, &order);
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
    last_ = *last;
    return reached;
  }

  // keep_bin() of all in near_, of which only the bin is copied. False where all of them do not reach `wanted`.
  bool first_bin(double* wanted, std::vector<Candidate>* order) {
    constexpr std::int32_t kBins = 512;
    const float top = near_.most, bins_per_logit = static_cast<float>(kBins) / (top - near_.least);
    const bool binned = std::isfinite(bins_per_logit) && bins_per_logit > 0;
    const auto count = static_cast<std::size_t>(near_.count);
    bins_.assign(count, 0);
    if (binned) kernels_.bins(near_.logits, near_.count, {top, -bins_per_logit, 0, 0, kBins - 1}, bins_.data());
    double masses[kBins][2] = {}, mass = 0;  // two each, so that neighbours in one bin do not wait for each other
    for (std::size_t i = 0; i < count; ++i) masses[bins_[i]][i % 2] += static_cast<double>(near_.weights[i]);
    const auto mass_at = [&](std::int32_t bin) { return masses[bin][0] + masses[bin][1]; };
    for (std::int32_t bin = 0; bin < kBins; ++bin) mass += mass_at(bin);
    const bool reached = mass >= *wanted;
    std::int32_t bin = 0;
    for (; binned && bin + 1 < kBins && mass_at(bin) < *wanted; ++bin) *wanted -= mass_at(bin);
    for (std::size_t i = 0; i < count; ++i) {
      if (bins_[i] == bin) order->push_back(near_.at(static_cast<std::int64_t>(i)));
    }
    return reached;
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
  std::vector<float> maxima_;                     // of the blocks
  std::vector<float> sums_;                       // of the blocks, by scale_
  std::vector<float> plain_sums_;                 // of the blocks, by plain_ where that is another
  std::vector<double> kept_sums_;                 // of the spans: tokens that are kept
  std::vector<std::int32_t> near_counts_, bins_;  // of the spans' tokens in near_; of near_
  Near near_;
  float* weights_;  // of the row, by scale_, where some of its tokens are left out
  float sampled_logits_[kMostSampled], sampled_weights_[kMostSampled];
  std::int64_t sampled_ = 0;
  Candidate last_ = {};  // the least likely that is kept
  double mass_ = 0;
  float largest_ = 0;
  SamplingScale plain_ = {}, scale_ = {};  // at temperature 1, and at this one
  bool scaled_ = false;                    // whether they differ
};

}  // namespace

void CpuBackend::sample(const Matrix& logits, const SamplingOptions& options, const double* uniforms,
                        std::int32_t* tokens, float* log_probs) {
  require_dense("sample", {logits});
  require(logits.dtype == DType::f32 && (logits.rows == 0 || logits.cols > 0), "sample: logits are f32");
  const SamplingKernels& kernels = sampling_kernels_for(isa_);
  std::atomic<bool> no_memory{false};
  const ThreadScratch scratch(*this, RowSampler::scratch_floats(logits.cols));
  parallel_items(threads_, logits.rows, [&](std::int64_t row, int thread) {
    try {
      RowSampler sampler(kernels, options, logits.f32() + row * logits.cols, logits.cols, scratch.of(thread));
      if (sampler.sample(uniforms[row], tokens + row, log_probs + row)) return;
      tokens[row] = -1;
      log_probs[row] = 0;
    } catch (const std::bad_alloc&) {
      no_memory = true;
    }
  });
  if (no_memory) throw OutOfMemory("the system has no memory for sampling");
}

}  // namespace tempora
