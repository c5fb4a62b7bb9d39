// TRL's preference losses as functions of log-prob sums and lengths, with their derivatives.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tempora {

enum class LossType {
  sigmoid,
  hinge,
  ipo,
  robust,
  exo_pair,
  nca_pair,
  bco_pair,
  sppo_hard,
  aot,
  aot_unpaired,
  apo_zero,
  apo_down,
  discopop,
  sigmoid_norm,
  sft,
};

LossType loss_type_from(const std::string& name);  // throws std::invalid_argument for an unknown name

struct LossTerm {
  LossType type;
  double weight;
};

struct PreferenceLoss {
  std::vector<LossTerm> terms;
  double beta = 0.1;
  double label_smoothing = 0;
  double discopop_tau = 0.05;

  bool couples_pairs() const;  // aot sorts over the batch
};

// Log-prob sums of P pairs; each vector [P].
struct PreferenceSums {
  std::vector<double> policy_chosen, policy_rejected, reference_chosen, reference_rejected;
  std::vector<std::int32_t> chosen_lengths, rejected_lengths;
};

struct LossResult {
  std::vector<double> pair_losses;  // [P]
  std::vector<double> d_chosen;     // [P] d(Σ pair_losses / total_pairs) / d policy_chosen
  std::vector<double> d_rejected;   // [P]
};

// Means run over total_pairs; the sft term's over total_chosen_tokens. With both 0, over this batch alone.
LossResult preference_loss(const PreferenceLoss& loss, const PreferenceSums& sums, double total_pairs,
                           double total_chosen_tokens);

}  // namespace tempora
