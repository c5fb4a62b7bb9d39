// Engine::preference_step and Engine::optimizer_step.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "../forest/random.h"
#include "engine_impl.h"

namespace tempora {
namespace {

// Which scored nodes make up a completion: those on the path from the root to its leaf.
std::vector<std::int32_t> completion_nodes(const Forest& forest, std::int32_t leaf) {
  std::vector<std::int32_t> nodes;
  for (std::int32_t node = leaf; node >= 0; node = forest.node_parent[node]) {
    if (forest.node_scored[node] != 0) nodes.push_back(node);
  }
  return nodes;
}

std::int32_t scored_tokens(const Forest& forest, std::int32_t node) {
  const std::int32_t length = forest.node_start[node + 1] - forest.node_start[node];
  return forest.node_parent[node] < 0 ? length - 1 : length;  // a root's first token has no prediction
}

// The loss of a forest's pairs of completions.
class PairLoss : public ForestLoss {
 public:
  explicit PairLoss(const PreferenceStep& step) : step_(step) {
    const std::size_t completions = step.pairs.size();
    result.log_probs.resize(completions);
    result.lengths.resize(completions);
    result.pair_losses.resize(completions / 2);
    result.token_log_probs.resize(step.forest.tokens.size());
    for (std::size_t i = 0; i < completions; ++i) {
      nodes_.push_back(completion_nodes(step.forest, step.pairs[i]));
      for (const std::int32_t node : nodes_[i]) result.lengths[i] += scored_tokens(step.forest, node);
    }
    roots_.resize(step.forest.node_parent.size());
    for (std::size_t node = 0; node < roots_.size(); ++node) {
      const std::int32_t parent = step.forest.node_parent[node];
      roots_[node] = parent < 0 ? static_cast<std::int32_t>(node) : roots_[parent];
    }
  }

  // Where no chunk of whole trees holds all that a pair's loss needs.
  bool needs_whole_batch() const override {
    if (step_.loss.couples_pairs()) return true;
    for (std::size_t i = 0; i < step_.pairs.size(); i += 2) {
      if (roots_[step_.pairs[i]] != roots_[step_.pairs[i + 1]]) return true;
    }
    return false;
  }

  void differentiate(const EdgeList& edges, std::int64_t begin, std::int64_t end, const std::vector<float>& log_prob,
                     std::vector<float>& coefficient) override {
    std::vector<std::uint8_t> root_here(roots_.size());
    const std::vector<std::int32_t> node_of = nodes_of_tokens();
    for (std::int64_t e = begin; e < end; ++e) {
      result.token_log_probs[edges.target[e]] = log_prob[e];
      root_here[roots_[node_of[edges.target[e]]]] = 1;
    }
    const std::vector<double> d_node = node_coefficients(root_here);
    for (std::int64_t e = begin; e < end; ++e) coefficient[e] = static_cast<float>(d_node[node_of[edges.target[e]]]);
  }

  PreferenceResult result;

 private:
  std::vector<std::int32_t> nodes_of_tokens() const {
    std::vector<std::int32_t> node_of(step_.forest.tokens.size());
    for (std::size_t node = 0; node < roots_.size(); ++node) {
      for (std::int32_t i = step_.forest.node_start[node]; i < step_.forest.node_start[node + 1]; ++i) {
        node_of[i] = static_cast<std::int32_t>(node);
      }
    }
    return node_of;
  }

  double log_prob_sum(std::size_t completion) const {
    double sum = 0;
    for (const std::int32_t node : nodes_[completion]) {
      for (std::int32_t i = step_.forest.node_start[node]; i < step_.forest.node_start[node + 1]; ++i) {
        sum += result.token_log_probs[i];
      }
    }
    return sum;
  }

  // dLoss/d(node's log-prob), from the pairs whose chosen tree is among `root_here`.
  std::vector<double> node_coefficients(const std::vector<std::uint8_t>& root_here) {
    PreferenceSums sums;
    std::vector<std::size_t> here;
    for (std::size_t pair = 0; pair * 2 < step_.pairs.size(); ++pair) {
      const std::size_t c = 2 * pair, r = c + 1;
      if (root_here[roots_[step_.pairs[c]]] == 0) continue;
      here.push_back(pair);
      result.log_probs[c] = log_prob_sum(c);
      result.log_probs[r] = log_prob_sum(r);
      sums.policy_chosen.push_back(result.log_probs[c]);
      sums.policy_rejected.push_back(result.log_probs[r]);
      sums.reference_chosen.push_back(step_.reference[c]);
      sums.reference_rejected.push_back(step_.reference[r]);
      sums.chosen_lengths.push_back(result.lengths[c]);
      sums.rejected_lengths.push_back(result.lengths[r]);
    }
    const LossResult losses = preference_loss(step_.loss, sums, step_.total_pairs, step_.total_chosen_tokens);
    std::vector<double> d_node(roots_.size());
    for (std::size_t k = 0; k < here.size(); ++k) {
      result.pair_losses[here[k]] = losses.pair_losses[k];
      result.loss += losses.pair_losses[k] / step_.total_pairs;
      for (const std::int32_t node : nodes_[2 * here[k]]) d_node[node] += losses.d_chosen[k];
      for (const std::int32_t node : nodes_[2 * here[k] + 1]) d_node[node] += losses.d_rejected[k];
    }
    return d_node;
  }

  const PreferenceStep& step_;
  std::vector<std::vector<std::int32_t>> nodes_;  // [2 P]
  std::vector<std::int32_t> roots_;               // [N]
};

}  // namespace

PreferenceResult Engine::preference_step(const PreferenceStep& step, const CancelFlag* cancel) {
  return impl_->train([&] {
    PairLoss pairs(step);
    impl_->scoring.step(step.forest, kept_for(step.checkpointing), pairs, cancel);
    return std::move(pairs.result);
  });
}

double Engine::optimizer_step(const OptimizerOptions& options) {
  ParameterSet& parameters = impl_->adapters.trained();
  Backend& backend = *impl_->backend;
  parameters.require_loaded();
  if (parameters.frozen()) throw std::invalid_argument("quantised weights cannot be trained: activate an adapter");
  parameters.ensure_gradients();
  const double norm = std::sqrt(parameters.gradient_squares());
  if (!std::isfinite(norm)) {
    parameters.zero_gradients();
    throw std::domain_error("the gradient norm is not finite");
  }
  parameters.ensure_moments();
  parameters.optimizer_steps += 1;
  AdamWOptions adamw;
  adamw.learning_rate = options.learning_rate;
  adamw.beta1 = options.beta1;
  adamw.beta2 = options.beta2;
  adamw.epsilon = options.epsilon;
  adamw.step = parameters.optimizer_steps;
  // As torch.nn.utils.clip_grad_norm_.
  if (options.max_grad_norm > 0) adamw.gradient_scale = std::min(1.0, options.max_grad_norm / (norm + 1e-6));
  const std::uint64_t key = combine_key(mix64(options.seed), static_cast<std::uint64_t>(adamw.step));
  std::vector<AdamWTensor> tensors;
  for (int i = 0; i < parameters.count(); ++i) {
    Parameter& parameter = parameters.at(i);
    const double decay = parameter.decays || options.decay_all ? options.weight_decay : 0;
    tensors.push_back({parameter.weight->values(), parameters.gradient(i), &parameter.moments, decay,
                       combine_key(key, static_cast<std::uint64_t>(i))});
  }
  backend.adamw(tensors, adamw);
  for (int i = 0; i < parameters.count(); ++i) parameters.weight(i).changed();
  parameters.zero_gradients();
  if (&parameters == &impl_->parameters) impl_->adapters.base_changed();
  impl_->weights_changed();
  return norm;
}

}  // namespace tempora
