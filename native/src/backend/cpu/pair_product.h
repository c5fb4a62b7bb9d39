// Products of large matrices of bf16, two of k at a time (kernels/pair_product.h), several at once.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "cpu_backend.h"

namespace tempora {

// left [m,k] · right: [k,n], or its transpose [n,k].
struct PairTerm {
  Matrix left, right;
};

// narrow [m,r] · right [r,n], all f32: a row of right has the numbers of each panel of the kernels together, panels and
// rows so many numbers apart.
struct PairNarrow {
  Matrix narrow;
  const float* right;
  std::int64_t panel, row;
};

// out [m,n] = added + the sum of its terms' products, those of narrow ones among them.
struct PairSum {
  std::vector<PairTerm> terms;
  bool right_transposed = false;
  Matrix out;
  Matrix added = {};  // of out's type; may be out itself, or nothing
  std::vector<PairNarrow> narrow = {};
};

// out [n,k] f32 (+)= d_outᵀ [n,t] · x [t,k]
struct PairGradient {
  Matrix d_out, out;
  bool accumulate = false;
  std::optional<double>* squares = nullptr;  // where the sum of out's squares goes, if it is wanted
};

// Whether an instruction set has these kernels for large matrices of a type.
bool multiplies_pairs_of(Isa isa, DType dtype);

// Whether left [m,k] · rightᵀ is a product for these kernels.
bool multiplies_pairs(CpuBackend& backend, const Matrix& left, const Matrix& right);

// Sums over one m, each with as many k in all. False where they are none for these kernels: nothing was done then.
bool add_up_pairs(CpuBackend& backend, const std::vector<PairSum>& sums);

// Gradients of the weights that x was multiplied by. False as above.
bool add_pair_gradients(CpuBackend& backend, const Matrix& x, const std::vector<PairGradient>& gradients);

// A part of left [m,k] · rightᵀ, right [n,k], as one thread computed it: f32 [rows, columns], rows `columns` apart.
struct PairTile {
  std::int64_t row, rows, column, columns;
  const float* data;
};

// All of it, a tile of at most so many rows and columns at a time; columns begin at multiples of that. body is called
// by several threads at once and must not throw. For what multiplies_pairs.
void for_pair_tiles(CpuBackend& backend, const Matrix& left, const Matrix& right, std::int64_t rows,
                    std::int64_t columns, const std::function<void(const PairTile&)>& body);

}  // namespace tempora
