// From the residual stream to log-probs and back: the final norm and the log-prob head on the scored rows only.
#pragma once

#include "decoder.h"
#include "likely_tokens.h"

namespace tempora {

// The loss of a forest's log-probs, as Scoring::step asks for it.
class ForestLoss {
 public:
  virtual ~ForestLoss() = default;
  // True where no coefficient can be told before all log-probs are known. Else those of a chunk of whole trees follow
  // from the chunk's log-probs.
  virtual bool needs_whole_batch() const { return false; }
  // Fills coefficient[e] = dLoss/dlog_prob for the edges [begin, end), whose log-probs are known by now. Both are [E].
  virtual void differentiate(const EdgeList& edges, std::int64_t begin, std::int64_t end,
                             const std::vector<float>& log_prob, std::vector<float>& coefficient) = 0;
};

// The scored tokens of a forest and what the model gives them.
struct ScoredEdges {
  EdgeList edges;
  std::vector<float> log_prob;  // [E]
  LikelyTokens likely;          // [E k] where they were asked for
};

class Scoring {
 public:
  Scoring(Backend& backend, const ModelShape& shape, Parameters& parameters, Decoder& decoder)
      : backend_(backend), shape_(shape), parameters_(parameters), decoder_(decoder) {}

  // `likely`: how many of the most likely tokens are told for each edge.
  ScoredEdges log_probs(const Forest& forest, int likely, const CancelFlag* cancel);

  // Forward and backward: adds to the parameters' gradients. Rows go through the head in chunks of whole trees. A loss
  // is asked for a chunk's coefficients as soon as its log-probs are known, and the chunk's logits are still there for
  // the backward pass (6·R·D·V multiply-adds in all); one that needs the whole batch is asked once, after the last
  // log-prob, and logits are computed twice (8·R·D·V). `keep` is inputs or activations.
  ScoredEdges step(const Forest& forest, Keep keep, ForestLoss& loss, const CancelFlag* cancel);

  // Final-norm states f32 [nodes, D] at the last token of each node.
  std::vector<float> hidden_states(const Forest& forest, const std::vector<std::int32_t>& nodes,
                                   const CancelFlag* cancel);

 private:
  struct Rows;

  Rows norm(const Matrix& residual);
  // Fills scored.log_prob, and d_normed f32 [R,D] with the loss's gradient.
  void likely_step(const Rows& rows, int likely, ScoredEdges& scored, const CancelFlag* cancel);
  void head_step(const Rows& rows, ForestLoss& loss, const Matrix& d_normed, ScoredEdges& scored,
                 const CancelFlag* cancel);

  Backend& backend_;
  const ModelShape& shape_;
  Parameters& parameters_;
  Decoder& decoder_;
};

}  // namespace tempora
