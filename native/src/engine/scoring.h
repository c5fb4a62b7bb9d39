// From the residual stream to log-probs and back: the final norm and the log-prob head on the scored rows only.
#pragma once

#include <functional>

#include "decoder.h"

namespace tempora {

// Fills coefficient[e] = dLoss/dlog_prob for the edges [begin, end), whose log-probs are known by now.
using Coefficients = std::function<void(std::int64_t begin, std::int64_t end, const std::vector<float>& log_prob,
                                        std::vector<float>& coefficient)>;

class Scoring {
 public:
  Scoring(Backend& backend, const ModelShape& shape, Parameters& parameters, Decoder& decoder)
      : backend_(backend), shape_(shape), parameters_(parameters), decoder_(decoder) {}

  // log_prob f32 [E] of every edge.
  std::vector<float> log_probs(const Forest& forest, EdgeList& edges, const CancelFlag* cancel);

  // Forward and backward. Rows go through the head in chunks of whole trees. Where `whole_batch` is false the
  // coefficients of a chunk are asked for as soon as its log-probs are known, and its logits are still there for the
  // backward pass (6·R·D·V multiply-adds in all); where it is true they are asked for once, for all edges, after the
  // last log-prob, and logits are computed twice (8·R·D·V).
  std::vector<float> step(const Forest& forest, EdgeList& edges, bool whole_batch, bool checkpointing,
                          const Coefficients& coefficients, const CancelFlag* cancel);

  // Final-norm states f32 [nodes, D] at the last token of each node.
  std::vector<float> hidden_states(const Forest& forest, const std::vector<std::int32_t>& nodes,
                                   const CancelFlag* cancel);

 private:
  struct Rows;

  Rows gather(const Matrix& x, const std::vector<std::int32_t>& source);
  void head_step(const Rows& rows, const EdgeList& edges, bool whole_batch, const Coefficients& coefficients,
                 const Matrix& d_normed, std::vector<float>& log_prob, const CancelFlag* cancel);

  Backend& backend_;
  const ModelShape& shape_;
  Parameters& parameters_;
  Decoder& decoder_;
};

}  // namespace tempora
