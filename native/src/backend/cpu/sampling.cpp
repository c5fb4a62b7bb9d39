// Choosing a token from a row of logits. Rows are independent, and what is drawn depends on the row and its uniform
// alone: the walk to the drawn token goes in order of token ids.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "cpu_backend.h"
#include "kernels/sampling.h"
#include "parallel.h"
#include "thread_scratch.h"
#include "views.h"

namespace tempora {
namespace {

constexpr std::int64_t kSample = 4096;  // logits from which it is estimated where the top p end
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

// Tokens whose logits lie in a range, in order of their ids, in scratch with room for all.
struct Near {
  float* logits;
  float* weights;
  std::int32_t* tokens;
  std::int64_t count = 0;
  float least = 0, most = 0;  // of all in the range

  static constexpr int kArrays = 3;
  Near(float* scratch, std::int64_t vocab)
      : logits(scratch),
        weights(logits + vocab + kSamplingSlack),
        tokens(reinterpret_cast<std::int32_t*>(weights + vocab + kSamplingSlack)) {}
  Candidate at(std::int64_t i) const { return {logits[i], weights[i], tokens[i]}; }
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
    kernels_.block_maxima(logits_, vocab_, maxima_.data());
    largest_ = *std::max_element(maxima_.begin(), maxima_.end());
    if (options_.temperature > 0) scale_ = 1 / options_.temperature;
    const bool top_k = options_.top_k > 0 && options_.top_k < vocab_;
    const bool from_top = options_.temperature > 0 && (top_k || options_.top_p < 1);
    const double log_sum = std::log(exp_sums(from_top ? weights_ : nullptr));
    if (!std::isfinite(log_sum) || !std::isfinite(largest_)) return false;
    if (options_.temperature <= 0) {
      *token = most_likely();
    } else {
      *token = from_top ? draw_from_top(uniform, top_k) : draw_from_all(uniform);
    }
    *log_prob = static_cast<float>(static_cast<double>(logits_[*token]) - largest_ - log_sum);
    return true;
  }

 private:
  // Fills sums_ with Σ exp((logit - largest) · scale_), `weights` with its terms unless it is null, and mass_ with
  // their total. Returns that total at scale 1.
  double exp_sums(float* weights) {
    if (scale_ == 1) {
      kernels_.block_exp_sums(logits_, vocab_, largest_, 1, sums_.data(), weights);
      return mass_ = total(sums_);
    }
    plain_sums_.resize(blocks_);
    kernels_.block_exp_sums_twice(logits_, vocab_, largest_, scale_, plain_sums_.data(), sums_.data(), weights);
    mass_ = total(sums_);
    return total(plain_sums_);
  }

  static double total(const std::vector<float>& sums) {
    double total = 0;
    for (const float sum : sums) total += sum;
    return total;
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
      split_at(top_k_threshold(), kInfinity, vocab_);
      const double mass = keep_most_likely(static_cast<std::int64_t>(options_.top_k));
      if (options_.top_p < 1) keep_mass(mass * options_.top_p);
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
    const auto [low, high] = around_top_p(lowest, mass_ - wanted);
    if ((low > lowest || high < kInfinity) && cut_between(low, high, wanted, true)) return;
    cut_between(lowest, kInfinity, wanted, false);
  }

  // Keeps the tokens from `high` up and of those in [low, high) the most likely that `wanted` needs. False where the
  // last one must lie elsewhere, which only a guess can cause.
  bool cut_between(float low, float high, double wanted, bool guessed) {
    SamplingFound found = split_at(low, high, vocab_ / 4);
    for (const double sum : kept_sums_) wanted -= sum;
    if (guessed && (wanted <= 0 || found.count == 0)) return false;
    if (found.least == found.most) return keep_tied(found, wanted) || !guessed;
    if (found.count > vocab_ / 4) split_at(low, high, vocab_);
    if (!keep_mass(wanted) && guessed) return false;
    add_kept_near();
    return true;
  }

  // The first of `found`, which are all alike, that reach `wanted`; false, and all of them, where they don't.
  bool keep_tied(const SamplingFound& found, double wanted) {
    float weight;
    kernels_.exp_weights(&found.most, 1, largest_, scale_, &weight);
    const double needed = std::ceil(wanted / static_cast<double>(weight));
    auto left = static_cast<std::int64_t>(std::clamp(needed, 1.0, static_cast<double>(found.count)));
    for (std::size_t span = 0; left > 0; ++span) {
      const std::int64_t kept = std::min<std::int64_t>(near_counts_[span], left);
      kept_sums_[span] += static_cast<double>(kept) * static_cast<double>(weight);
      left -= kept;
      if (left > 0) continue;
      std::int64_t token = static_cast<std::int64_t>(span) * kSamplingSpan - 1;
      for (std::int64_t i = 0; i < kept; ++i) {
        do ++token;
        while (logits_[token] != found.most);
      }
      last_ = {found.most, weight, static_cast<std::int32_t>(token)};
    }
    return needed <= static_cast<double>(found.count);
  }

  // Logits between which the least likely token of the top p should lie, where the tokens past it weigh `rest`: three
  // standard deviations of the sample's estimate to each side.
  std::pair<float, float> around_top_p(float lowest, double rest) const {
    constexpr std::int32_t kBins = 1024;
    constexpr std::int64_t kFew = 64;
    const std::pair<float, float> everything = {lowest, kInfinity};
    if (vocab_ < 2 * kSample) return everything;
    float logits[kSample], weights[kSample];
    for (std::int64_t i = 0; i < kSample; ++i) logits[i] = logits_[i * vocab_ / kSample];
    kernels_.exp_weights(logits, kSample, largest_, scale_, weights);
    const auto [least, most] = range_of(logits);
    const float first = std::max(lowest, least);
    const float bins_per_logit = static_cast<float>(kBins) / (most - first);
    if (!std::isfinite(bins_per_logit) || bins_per_logit <= 0) return everything;
    double sums[kBins + 2][2] = {};  // of weights and their squares: below `first`, and of the bins from there up
    std::int32_t bins[kSample];
    kernels_.bins(logits, kSample, {first, bins_per_logit, -1, 1, kBins + 1}, bins);
    std::int64_t reaching = 0;
    for (std::int64_t i = 0; i < kSample; ++i) {
      const double weight = weights[i];
      sums[bins[i]][0] += weight;
      sums[bins[i]][1] += weight * weight;
      reaching += bins[i] >= 1 ? 1 : 0;
    }
    if (reaching < kFew) return everything;
    const auto edge = [&](std::int64_t bin) { return first + static_cast<float>(bin - 1) / bins_per_logit; };
    const double wanted = rest * static_cast<double>(kSample) / static_cast<double>(vocab_);
    double below = 0, below_squares = 0;
    // Whether `wanted` lies that far above (direction 1) or below what was added up.
    const auto is_far = [&](double direction) {
      const double variance = below_squares - below * below / static_cast<double>(kSample);
      const double off = (wanted - below) * direction;
      return off > 0 && off * off > 9 * variance;
    };
    float low = lowest;
    for (std::int64_t bin = 0; bin <= kBins; ++bin) {
      if (bin > 0 && is_far(-1)) return {low, edge(bin)};
      below += sums[bin][0];
      below_squares += sums[bin][1];
      if (is_far(1)) low = edge(bin + 1);
    }
    return {low, kInfinity};
  }

  // The least and the most, in lanes, since the branches of minmax_element() cannot be foreseen.
  static std::pair<float, float> range_of(const float (&logits)[kSample]) {
    constexpr std::int64_t kLanes = 8;
    float least[kLanes], most[kLanes];
    std::fill_n(least, kLanes, kInfinity);
    std::fill_n(most, kLanes, -kInfinity);
    const auto take = [&](float value, std::int64_t lane) {
      least[lane] = value < least[lane] ? value : least[lane];
      most[lane] = value > most[lane] ? value : most[lane];
    };
    for (std::int64_t i = 0; i < kSample; i += kLanes) {
      for (std::int64_t lane = 0; lane < kLanes; ++lane) take(logits[i + lane], lane);
    }
    return {*std::min_element(least, least + kLanes), *std::max_element(most, most + kLanes)};
  }

  // In kept_sums_ the weights of the spans' tokens from `high` up, in near_ those in [low, high), of which the first
  // `room`.
  SamplingFound split_at(float low, float high, std::int64_t room) {
    const SamplingFound found =
        kernels_.split({logits_, maxima_.data(), weights_, vocab_}, low, high, kept_sums_.data(), near_counts_.data(),
                       {near_.logits, near_.weights, near_.tokens, room});
    near_.count = std::min(found.count, room);
    near_.least = found.least;
    near_.most = found.most;
    return found;
  }

  // What last_ keeps of near_ joins kept_sums_.
  void add_kept_near() {
    kernels_.keep_until(near_.logits, near_.tokens, near_.count, last_.logit, last_.token, near_.weights);
    const float* weights = near_.weights;
    for (std::size_t span = 0; span < kept_sums_.size(); weights += near_counts_[span++]) {
      const std::int32_t count = near_counts_[span];
      double lanes[4] = {};
      for (std::int32_t i = 0; i < count; ++i) lanes[i % 4] += weights[i];
      kept_sums_[span] += (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
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
    std::int32_t tokens[kSamplingSpan];
    std::iota(std::begin(tokens), std::end(tokens), static_cast<std::int32_t>(first));
    kernels_.keep_until(logits_ + first, tokens, count, last_.logit, last_.token, weights);
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

  // Leaves in near_ the `count` most likely. Returns their mass.
  double keep_most_likely(std::int64_t count) {
    std::vector<Candidate> order(static_cast<std::size_t>(near_.count));
    for (std::int64_t i = 0; i < near_.count; ++i) order[static_cast<std::size_t>(i)] = near_.at(i);
    const auto last = order.begin() + static_cast<std::ptrdiff_t>(std::min(count, near_.count) - 1);
    std::nth_element(order.begin(), last, order.end(), before);
    last_ = *last;
    double mass = 0;
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < near_.count; ++i) {
      const Candidate one = near_.at(i);
      if (before(last_, one)) {
        --near_counts_[static_cast<std::size_t>(one.token / kSamplingSpan)];
        continue;
      }
      near_.logits[kept] = one.logit;
      near_.weights[kept] = one.weight;
      near_.tokens[kept++] = one.token;
      mass += one.weight;
    }
    near_.count = kept;
    near_.least = last_.logit;
    return mass;
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
    double masses[kBins] = {}, mass = 0;
    for (std::size_t i = 0; i < count; ++i) masses[bins_[i]] += near_.weights[i];
    for (const double one : masses) mass += one;
    const bool reached = mass >= *wanted;
    std::int32_t bin = 0;
    for (; binned && bin + 1 < kBins && masses[bin] < *wanted; ++bin) *wanted -= masses[bin];
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
  std::vector<float> sums_;                       // of the blocks, at scale_
  std::vector<float> plain_sums_;                 // of the blocks, at scale 1 where that is another
  std::vector<double> kept_sums_;                 // of the spans: tokens that are kept
  std::vector<std::int32_t> near_counts_, bins_;  // of the spans' tokens in near_; of near_
  Near near_;
  float* weights_;       // exp((logit - largest_) · scale_) of the row where some of its tokens are left out
  Candidate last_ = {};  // the least likely that is kept
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
