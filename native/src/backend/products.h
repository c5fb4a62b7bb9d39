// Several products of one input, or back to it, that are asked for at once.
#pragma once

#include <optional>

#include "matrix.h"

namespace tempora {

class Weight;

// What an adapter adds to a product, f32 of rank r: narrow [T,r] · weightᵀ, weight [N,r], to x · weightᵀ; and narrow
// [T,r] · weight, weight [r,K], to d_out · weight.
struct NarrowTerm {
  Matrix narrow;
  const Weight* weight = nullptr;  // null: nothing; on the way back only where the backend takes such terms
};

// A product among several of one x.
struct WeightProduct {
  const Weight& weight;
  Matrix out;
  NarrowTerm narrow = {};
};

// The backward pass of such products: what comes back through one weight, and the gradient of one.
struct TransposedProduct {
  Matrix d_out;
  const Weight& weight;
  NarrowTerm narrow = {};
};
struct GradientProduct {
  Matrix d_out, d_weight;  // d_weight f32
  bool accumulate = false;
  std::optional<double>* squares = nullptr;  // for the sum of d_weight's new squares, by a backend that has it
};

}  // namespace tempora
