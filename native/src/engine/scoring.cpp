#include "scoring.h"

#include <utility>

#include "head_passes.h"

namespace tempora {
namespace {

// Whole logits on their way to the host, at most.
constexpr std::int64_t kLikelyLogitsBytes = std::int64_t{64} << 20;

std::vector<std::int32_t> target_tokens(const Forest& forest, const EdgeList& edges) {
  std::vector<std::int32_t> tokens;
  for (const std::int32_t target : edges.target) tokens.push_back(forest.tokens[target]);
  return tokens;
}

}  // namespace

// The rows whose result is wanted, and their final norm.
struct Scoring::Rows {
  Matrix residual;                         // f32 [R,D]
  Matrix normed;                           // A [R,D]
  float* rstd = nullptr;                   // [R]
  std::vector<std::int32_t> target_token;  // [E]
};

Scoring::Rows Scoring::norm(const Matrix& residual) {
  Arena& arena = decoder_.arena();
  Rows rows{
      residual, arena.matrix(residual.rows, shape_.hidden_size, parameters_.dtype()), arena.floats(residual.rows), {}};
  backend_.rms_norm(residual, parameters_.data(parameters_.final_norm()), shape_.norm_eps, rows.normed, rows.rstd);
  return rows;
}

ScoredEdges Scoring::log_probs(const Forest& forest, int likely, const CancelFlag* cancel) {
  ForestLayout layout = layout_of(forest);
  ScoredEdges scored{edges_of(forest, layout), {}, {}};
  scored.log_prob.resize(scored.edges.size());
  const Batch batch = decoder_.prepare(forest, std::move(layout), scored.edges.source, Use::scoring);
  if (scored.log_prob.empty()) return scored;
  Rows rows = norm(decoder_.forward(batch, Keep::nothing, cancel));
  if (likely > 0) {
    rows.target_token = target_tokens(forest, scored.edges);
    likely_step(rows, likely, scored, cancel);
    return scored;
  }
  Arena& arena = decoder_.arena();
  const Edges uploaded{static_cast<std::int64_t>(scored.edges.size()),
                       arena.upload(target_tokens(forest, scored.edges)), arena.upload(scored.edges.row_start)};
  float* result = arena.floats(uploaded.count);
  backend_.head_forward(rows.normed, parameters_.weight(parameters_.head()), uploaded, result,
                        arena.floats(rows.normed.rows), Matrix{});
  backend_.copy_out(scored.log_prob.data(), result, scored.log_prob.size() * sizeof(float));
  return scored;
}

// Log-probs from whole logits on the host, some rows at a time, so that a token that is among the most likely ones has
// one log-prob in both places.
void Scoring::likely_step(const Rows& rows, int likely, ScoredEdges& scored, const CancelFlag* cancel) {
  const EdgeList& edges = scored.edges;
  const Weight& weight = parameters_.weight(parameters_.head());
  const std::int64_t vocabulary = weight.rows, row_bytes = vocabulary * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t at_once = std::max<std::int64_t>(1, kLikelyLogitsBytes / row_bytes);
  for (std::int64_t begin = 0; begin < rows.normed.rows; begin += at_once) {
    if (cancel != nullptr) cancel->check();
    const ArenaScope scope(decoder_.scratch());
    const std::int64_t count = std::min(at_once, rows.normed.rows - begin);
    const Matrix logits = decoder_.scratch().matrix(count, vocabulary, DType::f32);
    backend_.product(rows.normed.row_range(begin, count), weight, logits, false);
    const std::vector<float> host = logits_on_host(backend_, logits);
    for (std::int64_t r = 0; r < count; ++r) {
      const float* row = host.data() + r * vocabulary;
      const double lse = log_sum_exp(row, vocabulary);
      for (std::int32_t e = edges.row_start[begin + r]; e < edges.row_start[begin + r + 1]; ++e) {
        scored.log_prob[e] = static_cast<float>(static_cast<double>(row[rows.target_token[e]]) - lse);
        append_likely(row, vocabulary, lse, likely, scored.likely);
      }
    }
  }
}

void Scoring::head_step(const Rows& rows, ForestLoss& loss, const Matrix& d_normed, ScoredEdges& scored,
                        const CancelFlag* cancel) {
  const EdgeList& edges = scored.edges;
  std::vector<float>& log_prob = scored.log_prob;
  std::vector<float> coefficient(log_prob.size());
  const bool whole_batch = loss.needs_whole_batch();
  const auto check = [&] {
    if (cancel != nullptr) cancel->check();
  };
  const ArenaScope scope(decoder_.scratch());
  HeadPasses head({backend_, parameters_, decoder_.scratch(), edges, rows.target_token, rows.normed, d_normed,
                   decoder_.arena().floats(rows.normed.rows)},
                  whole_batch);
  if (whole_batch) {
    for (std::size_t i = 0; i < head.chunks(); ++i) {
      check();
      head.forward(i);
      head.copy_out(i, log_prob);
    }
    loss.differentiate(edges, 0, static_cast<std::int64_t>(log_prob.size()), log_prob, coefficient);
  }
  for (std::size_t i = 0; i < head.chunks(); ++i) {
    check();
    if (!whole_batch) {
      if (i == 0 || !head.next_first()) head.forward(i);
      head.copy_out(i, log_prob);
      // A device computes it while the host is at this chunk's loss.
      if (i + 1 < head.chunks() && head.next_first()) head.forward(i + 1);
      const auto [first, last] = head.edges_of_chunk(i);
      loss.differentiate(edges, first, last, log_prob, coefficient);
      check();
    }
    head.backward(i, coefficient);
  }
}

ScoredEdges Scoring::step(const Forest& forest, Keep keep, ForestLoss& loss, const CancelFlag* cancel) {
  ForestLayout layout = layout_of(forest);
  ScoredEdges scored{edges_of(forest, layout), {}, {}};
  scored.log_prob.resize(scored.edges.size());
  const Batch batch = decoder_.prepare(forest, std::move(layout), scored.edges.source, Use::training);
  if (scored.log_prob.empty()) return scored;
  Rows rows = norm(decoder_.forward(batch, keep, cancel));
  rows.target_token = target_tokens(forest, scored.edges);

  Arena& arena = decoder_.arena();
  const Matrix d_normed = arena.matrix(rows.normed.rows, shape_.hidden_size, DType::f32);
  head_step(rows, loss, d_normed, scored, cancel);

  const Matrix d_residual = arena.matrix(rows.normed.rows, shape_.hidden_size, DType::f32);
  backend_.zero(d_residual.data, d_residual.bytes());
  const int final_norm = parameters_.final_norm();
  backend_.rms_norm_backward(rows.residual, parameters_.data(final_norm), parameters_.dtype(), rows.rstd, d_normed,
                             d_residual, parameters_.gradient_data(final_norm));
  decoder_.backward(batch, d_residual, cancel);
  return scored;
}

std::vector<float> Scoring::hidden_states(const Forest& forest, const std::vector<std::int32_t>& nodes,
                                          const CancelFlag* cancel) {
  ForestLayout layout = layout_of(forest);
  std::vector<std::int32_t> last;
  for (const std::int32_t node : nodes) last.push_back(layout.node_start[node + 1] - 1);
  const Batch batch = decoder_.prepare(forest, std::move(layout), last, Use::scoring);
  const Rows rows = norm(decoder_.forward(batch, Keep::nothing, cancel));
  Matrix states = rows.normed;
  if (states.dtype != DType::f32) {
    states = decoder_.arena().matrix(states.rows, states.cols, DType::f32);
    backend_.cast(rows.normed, states);
  }
  std::vector<float> host(static_cast<std::size_t>(states.size()));
  backend_.copy_out(host.data(), states.data, states.bytes());
  return host;
}

}  // namespace tempora
