// The passes of the log-prob head over a step's scored rows, in chunks of whole trees whose logits are kept from the
// forward to the backward pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "arena.h"
#include "parameters.h"

namespace tempora {

struct ScoredRows {
  Backend& backend;
  const Parameters& parameters;
  Arena& scratch;
  const EdgeList& edges;
  const std::vector<std::int32_t>& target_token;  // [E]
  Matrix normed;                                  // A [R,D]
  Matrix d_normed;                                // f32 [R,D], which the backward passes fill
  float* lse;                                     // [R]
};

class HeadPasses {
 public:
  // Takes scratch memory, which is the caller's to give back. `twice`: all forward passes come before the first
  // backward pass, so that no logits are kept.
  HeadPasses(const ScoredRows& rows, bool twice);

  std::size_t chunks() const { return chunks_.size(); }
  // Whether a chunk's forward pass is to be queued before the backward pass of the one before it.
  bool next_first() const { return slots_.size() > 1; }
  std::pair<std::int64_t, std::int64_t> edges_of_chunk(std::size_t chunk) const;  // begin, end

  void forward(std::size_t chunk);
  void copy_out(std::size_t chunk, std::vector<float>& log_prob);  // after forward
  void backward(std::size_t chunk, const std::vector<float>& coefficient);

 private:
  struct Chunk {
    std::int64_t row_begin, row_end;
    std::int64_t rows() const { return row_end - row_begin; }
  };
  // The device memory of a chunk under way.
  struct Slot {
    std::int32_t *token = nullptr, *row_start = nullptr;
    void* kept = nullptr;
    float *log_prob = nullptr, *coefficient = nullptr;
    std::size_t chunk = SIZE_MAX;  // whose edges are there
  };

  std::vector<Chunk> chunks_that_fit(std::int64_t logits_bytes) const;
  Slot new_slot() const;
  Slot& slot_of(std::size_t chunk) { return slots_[chunk % slots_.size()]; }
  Edges place(std::size_t chunk);
  bool is_kept(const Chunk& chunk) const;
  Matrix kept_of(std::size_t chunk);
  const Weight& weight() const { return rows_.parameters.weight(rows_.parameters.head()); }

  ScoredRows rows_;
  bool twice_;
  std::int64_t row_bytes_;  // of logits
  Budget budget_;
  std::vector<Chunk> chunks_;
  std::vector<Slot> slots_;
  GradientSum d_weight_;
};

}  // namespace tempora
