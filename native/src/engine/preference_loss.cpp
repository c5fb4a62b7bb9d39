// The formulas are TRL's (DPOTrainer, loss_type). lc, lr: policy log-prob sums of chosen and rejected; rc, rr: the
// reference's; Dc = lc - rc, Dr = lr - rr, d = Dc - Dr; nc, nr: completion lengths in tokens.
#include "preference_loss.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace tempora {
namespace {

constexpr std::array<std::pair<const char*, LossType>, 15> kNames{{
    {"sigmoid", LossType::sigmoid},
    {"hinge", LossType::hinge},
    {"ipo", LossType::ipo},
    {"robust", LossType::robust},
    {"exo_pair", LossType::exo_pair},
    {"nca_pair", LossType::nca_pair},
    {"bco_pair", LossType::bco_pair},
    {"sppo_hard", LossType::sppo_hard},
    {"aot", LossType::aot},
    {"aot_unpaired", LossType::aot_unpaired},
    {"apo_zero", LossType::apo_zero},
    {"apo_down", LossType::apo_down},
    {"discopop", LossType::discopop},
    {"sigmoid_norm", LossType::sigmoid_norm},
    {"sft", LossType::sft},
}};

double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
double log_sigmoid(double x) { return x >= 0 ? -std::log1p(std::exp(-x)) : x - std::log1p(std::exp(x)); }

// A loss and its derivative with respect to Dc and Dr (equally to lc and lr).
struct Value {
  double loss;
  double d_chosen;
  double d_rejected;
};

// A loss of one argument x = scale_c·Dc - scale_r·Dr.
struct Slope {
  double loss;
  double d;
};

// -(1-e) log s(x) - e log s(-x)
Slope smoothed_sigmoid(double x, double e) {
  return {-(1 - e) * log_sigmoid(x) - e * log_sigmoid(-x), -(1 - e) * sigmoid(-x) + e * sigmoid(x)};
}

Slope robust(double x, double e) {
  const double scale = 1 / (1 - 2 * e);
  return {scale * (-(1 - e) * log_sigmoid(x) + e * log_sigmoid(-x)), scale * (-(1 - e) * sigmoid(-x) - e * sigmoid(x))};
}

// s(x) [log s(x) - log(1-e)] + s(-x) [log s(-x) - log e]. Its derivative: s'(x) times the difference of the brackets;
// the brackets' own derivatives cancel (s(x)·s(-x) - s(-x)·s(x)).
Slope exo(double x, double e) {
  const double p = sigmoid(x), q = sigmoid(-x);
  const double left = log_sigmoid(x) - std::log(1 - e), right = log_sigmoid(-x) - std::log(e);
  return {p * left + q * right, p * q * (left - right)};
}

// -log s(x) (1-m) + exp(-x) m with m = s(x / tau)
Slope discopop(double x, double tau) {
  const double m = sigmoid(x / tau), dm = m * (1 - m) / tau;
  const double logistic = -log_sigmoid(x), exponential = std::exp(-x);
  return {logistic * (1 - m) + exponential * m,
          -sigmoid(-x) * (1 - m) - logistic * dm - exponential * m + exponential * dm};
}

struct Pair {
  double dc, dr;  // Dc, Dr
  double nc, nr;
};

// Every loss that looks at one pair alone.
Value pair_value(LossType type, const PreferenceLoss& loss, const Pair& p) {
  const double b = loss.beta, e = loss.label_smoothing, x = b * (p.dc - p.dr);
  const auto paired = [b](Slope s) { return Value{s.loss, b * s.d, -b * s.d}; };
  switch (type) {
    case LossType::sigmoid:
      return paired(smoothed_sigmoid(x, e));
    case LossType::hinge:
      return paired({std::max(0.0, 1 - x), x < 1 ? -1.0 : 0.0});
    case LossType::ipo: {
      const double r = p.dc / p.nc - p.dr / p.nr - 1 / (2 * b);
      return {r * r, 2 * r / p.nc, -2 * r / p.nr};
    }
    case LossType::robust:
      return paired(robust(x, e));
    case LossType::exo_pair:
      return paired(exo(x, e));
    case LossType::nca_pair:
      return {-log_sigmoid(b * p.dc) - 0.5 * log_sigmoid(-b * p.dc) - 0.5 * log_sigmoid(-b * p.dr),
              b * (-sigmoid(-b * p.dc) + 0.5 * sigmoid(b * p.dc)), b * 0.5 * sigmoid(b * p.dr)};
    case LossType::bco_pair:
      return {-log_sigmoid(b * p.dc) - log_sigmoid(-b * p.dr), -b * sigmoid(-b * p.dc), b * sigmoid(b * p.dr)};
    case LossType::sppo_hard: {
      const double rc = p.dc - 1 / (2 * b), rr = p.dr + 1 / (2 * b);
      return {rc * rc + rr * rr, 2 * rc, 2 * rr};
    }
    case LossType::apo_zero: {
      const double c = sigmoid(b * p.dc), r = sigmoid(b * p.dr);
      return {1 - c + r, -b * c * (1 - c), b * r * (1 - r)};
    }
    case LossType::apo_down: {
      const double c = sigmoid(b * p.dc), m = sigmoid(x);
      return {c + 1 - m, b * (c * (1 - c) - m * (1 - m)), b * m * (1 - m)};
    }
    case LossType::discopop:
      return paired(discopop(x, loss.discopop_tau));
    case LossType::sigmoid_norm: {
      const Slope s = smoothed_sigmoid(b * (p.dc / p.nc - p.dr / p.nr), 0);
      return {s.loss, b * s.d / p.nc, -b * s.d / p.nr};
    }
    case LossType::aot:
    case LossType::aot_unpaired:
    case LossType::sft:
      break;
  }
  throw std::logic_error("not a loss of one pair");
}

// Indices that sort `values` ascending; equal values keep their order.
std::vector<std::size_t> sorted_order(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return values[i] < values[j]; });
  return order;
}

// aot: sort(lc - lr) - sort(rc - rr). aot_unpaired: sort(Dc) - sort(Dr). The derivative goes to the pair that holds
// each sorted place. The loss of place k is booked on pair k: only the mean has a meaning.
void add_sorted(const PreferenceLoss& loss, double weight, bool unpaired, const PreferenceSums& s, double scale,
                LossResult& result) {
  const std::size_t n = s.policy_chosen.size();
  std::vector<double> high(n), low(n);
  for (std::size_t i = 0; i < n; ++i) {
    high[i] = s.policy_chosen[i] - (unpaired ? s.reference_chosen[i] : s.policy_rejected[i]);
    low[i] =
        unpaired ? s.policy_rejected[i] - s.reference_rejected[i] : s.reference_chosen[i] - s.reference_rejected[i];
  }
  const auto high_order = sorted_order(high), low_order = sorted_order(low);
  for (std::size_t k = 0; k < n; ++k) {
    const Slope slope = smoothed_sigmoid(loss.beta * (high[high_order[k]] - low[low_order[k]]), loss.label_smoothing);
    const double d = weight * scale * loss.beta * slope.d;
    result.pair_losses[k] += weight * slope.loss;
    result.d_chosen[high_order[k]] += d;
    result.d_rejected[unpaired ? low_order[k] : high_order[k]] -= d;
  }
}

}  // namespace

LossType loss_type_from(const std::string& name) {
  for (const auto& [known, type] : kNames) {
    if (name == known) return type;
  }
  throw std::invalid_argument("unknown loss type " + name);
}

bool PreferenceLoss::couples_pairs() const {
  return std::any_of(terms.begin(), terms.end(), [](const LossTerm& term) {
    return term.type == LossType::aot || term.type == LossType::aot_unpaired;
  });
}

LossResult preference_loss(const PreferenceLoss& loss, const PreferenceSums& sums, double total_pairs,
                           double total_chosen_tokens) {
  const std::size_t n = sums.policy_chosen.size();
  if (total_pairs == 0) total_pairs = static_cast<double>(n);
  if (total_chosen_tokens == 0) {
    total_chosen_tokens = std::accumulate(sums.chosen_lengths.begin(), sums.chosen_lengths.end(), 0.0);
  }
  LossResult result{std::vector<double>(n), std::vector<double>(n), std::vector<double>(n)};
  const double scale = 1 / total_pairs;
  for (const LossTerm& term : loss.terms) {
    if (term.type == LossType::aot || term.type == LossType::aot_unpaired) {
      add_sorted(loss, term.weight, term.type == LossType::aot_unpaired, sums, scale, result);
      continue;
    }
    for (std::size_t i = 0; i < n; ++i) {
      if (term.type == LossType::sft) {
        // A token mean over the batch: its sum over pairs, divided by total_pairs, is that mean.
        result.pair_losses[i] -= term.weight * sums.policy_chosen[i] * total_pairs / total_chosen_tokens;
        result.d_chosen[i] -= term.weight / total_chosen_tokens;
        continue;
      }
      const Value value = pair_value(
          term.type, loss,
          {sums.policy_chosen[i] - sums.reference_chosen[i], sums.policy_rejected[i] - sums.reference_rejected[i],
           static_cast<double>(sums.chosen_lengths[i]), static_cast<double>(sums.rejected_lengths[i])});
      result.pair_losses[i] += term.weight * value.loss;
      result.d_chosen[i] += term.weight * scale * value.d_chosen;
      result.d_rejected[i] += term.weight * scale * value.d_rejected;
    }
  }
  return result;
}

}  // namespace tempora
