// The passes of a running generation: a token for each row, whose choice is the row's next input without the host. A
// pass of as many rows as one before is run as that was recorded. Passes may be queued before the results of those
// before them are waited for.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <vector>

#include "cached_decoder.h"
#include "token_sampler.h"

namespace tempora {

// The rows of one pass, each with what the sampler is asked for it (no likely tokens).
struct DecodingRows {
  CacheRows inputs;
  std::vector<SampledRow> sampled;
  // The row of the pass queued last whose token is this row's input; -1 where that is its token in `inputs`.
  std::vector<std::int32_t> from;
};

class DecodingPass {
 public:
  // Of up to `max_rows` rows. The cache outlives it; the weights stay the same.
  DecodingPass(Engine::Impl& impl, const KvCache& cache, std::int64_t max_rows);

  void queue(DecodingRows rows, const CancelFlag* cancel);
  std::size_t queued() const { return arrivals_.size(); }
  // Results of the oldest pass that is queued. Throws std::domain_error where its logits are not finite.
  SampledTokens take();

 private:
  // Passes of as many rows, through the same adapters, that are sampled alike.
  struct Kind {
    std::int64_t rows = 0;
    AdapterPass adapters;
    std::vector<SampledRow> sampled;  // their options
    std::uint64_t scratch_version = 0;
    Buffer inputs;
    std::unique_ptr<CachePlan> plan;
    std::unique_ptr<Recording> recording;

    // [rows] each, in one piece.
    double* uniforms() const { return static_cast<double*>(inputs.data()); }
    std::int32_t* ints(int array) const { return reinterpret_cast<std::int32_t*>(uniforms() + rows) + array * rows; }
    static std::size_t bytes(std::int64_t rows) {
      return static_cast<std::size_t>(rows) * (sizeof(double) + 4 * sizeof(std::int32_t));
    }
  };
  struct Queued {
    std::size_t rows;
    std::unique_ptr<Arrival> results;
  };

  void fill_up(DecodingRows& rows) const;
  Kind& kind_of(const DecodingRows& rows);
  void copy_in(const Kind& kind, const DecodingRows& rows);
  void run(const Kind& kind);
  std::int32_t* tokens() const { return static_cast<std::int32_t*>(results_.data()); }
  float* log_probs() const { return reinterpret_cast<float*>(tokens() + max_rows_); }

  Engine::Impl& impl_;
  Backend& backend_;
  const KvCache& cache_;
  std::int64_t max_rows_;
  Buffer results_;         // [max_rows] tokens, then log-probs, of the pass that was queued last
  std::list<Kind> kinds_;  // the one that was used last first
  std::deque<Queued> arrivals_;
  const CancelFlag* cancel_ = nullptr;  // of the call that runs
};

}  // namespace tempora
