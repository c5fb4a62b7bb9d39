// Weights, and the products for batches of many rows: those of pairs of bf16, where the CPU has them, or oneDNN's.
#include <algorithm>

#include "cpu_backend.h"
#include "kernels/packed.h"
#include "kernels/pair_product.h"
#include "pair_product.h"
#include "parallel.h"
#include "quantised.h"
#include "views.h"
#include "weight.h"

namespace tempora {

std::unique_ptr<Weight> CpuBackend::make_weight(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  return std::make_unique<CpuWeight>(format, rows, cols,
                                     allocate(weight_bytes(format, rows * cols), MemoryUse::weights));
}

// The numbers of a weight as `dtype`; `owner` holds what had to be dequantised.
Matrix CpuBackend::numbers_of(const Weight& weight, DType dtype, Buffer& owner) {
  if (is_plain(weight.format)) return weight.values();
  owner = workspace(static_cast<std::size_t>(weight.size()) * size_of(dtype));
  const Matrix numbers{owner.data(), dtype, weight.rows, weight.cols};
  parallel_ranges(threads_, weight.rows, row_grain(weight.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    dequantise_rows(isa_, weight, begin, end - begin, dtype, numbers.row_range(begin, end - begin).data);
  });
  return numbers;
}

void CpuBackend::product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  Buffer owner;
  matmul(x, numbers_of(weight, x.dtype, owner), out, {.transpose_b = true, .accumulate = accumulate});
}

void CpuBackend::transposed_product(const Matrix& d_out, const Weight& weight, const Matrix& d_x, bool accumulate) {
  Buffer owner;
  matmul(d_out, numbers_of(weight, d_out.dtype, owner), d_x, {.accumulate = accumulate});
}

void CpuBackend::gradient_product(const Matrix& d_out, const Matrix& x, const Matrix& d_weight, bool accumulate) {
  require(d_weight.dtype == DType::f32, "gradient_product: the gradient is f32");
  matmul(d_out, x, d_weight, {.transpose_a = true, .accumulate = accumulate});
}

bool CpuBackend::takes_narrow_terms(DType activations) const { return multiplies_pairs_of(isa_, activations); }

namespace {

// Whether it is a product of pairs, before a weight is dequantised for it.
bool may_be_of_pairs(CpuBackend& backend, const Matrix& left, const Weight& weight) {
  return multiplies_pairs(backend, left, Matrix{nullptr, left.dtype, weight.rows, weight.cols});
}

bool all_plain(const auto& products) {
  return std::ranges::all_of(products, [](const auto& one) { return is_plain(one.weight.format); });
}

// A weight [N,r] lies in panels of columns, as row products have it; [r,K] is read as it is.
std::vector<PairNarrow> narrow_of(CpuBackend& backend, const NarrowTerm& term, bool transposed) {
  if (term.weight == nullptr) return {};
  const std::int64_t columns = pair_product_kernels_for(backend.isa()).panel_columns;
  if (transposed) return {{term.narrow, term.weight->values().f32(), columns, term.weight->cols}};
  require(packed_kernels_for(backend.isa()).panel_columns == columns, "narrow terms: one width of panels");
  const WeightPanels& panels = panels_of(backend, static_cast<const CpuWeight&>(*term.weight));
  return {{term.narrow, static_cast<const float*>(panels.data.data()), columns * panels.padded_k, columns}};
}

}  // namespace

// Quantised weights are dequantised one at a time.
void CpuBackend::products(const Matrix& x, const std::vector<WeightProduct>& products) {
  if (!multiplies_pairs_of(isa_, x.dtype)) return Backend::products(x, products);
  const bool together = all_plain(products);
  std::vector<PairSum> sums;
  for (const WeightProduct& one : products) {
    if (!together && !may_be_of_pairs(*this, x, one.weight)) {
      Backend::products(x, {one});
      continue;
    }
    Buffer owner;
    sums.push_back(
        {{{x, numbers_of(one.weight, x.dtype, owner)}}, true, one.out, {}, narrow_of(*this, one.narrow, false)});
    if (together) continue;
    const bool done = add_up_pairs(*this, sums);
    sums.clear();
    owner = Buffer();
    if (!done) Backend::products(x, {one});
  }
  if (together && !add_up_pairs(*this, sums)) Backend::products(x, products);
}

void CpuBackend::residual_product(const Matrix& x, const WeightProduct& one, const Matrix& residual) {
  if (!may_be_of_pairs(*this, x, one.weight)) return Backend::residual_product(x, one, residual);
  Buffer owner;
  const PairSum sum{
      {{x, numbers_of(one.weight, x.dtype, owner)}}, true, one.out, residual, narrow_of(*this, one.narrow, false)};
  if (add_up_pairs(*this, {sum})) return;
  owner = Buffer();
  Backend::residual_product(x, one, residual);
}

void CpuBackend::transposed_products(const std::vector<TransposedProduct>& products, const Matrix& d_x) {
  if (!multiplies_pairs_of(isa_, products.front().d_out.dtype)) return Backend::transposed_products(products, d_x);
  if (!all_plain(products)) {
    for (std::size_t i = 0; i < products.size(); ++i) add_transposed(products[i], d_x, i > 0);
    return;
  }
  PairSum sum;
  for (const TransposedProduct& one : products) {
    sum.terms.push_back({one.d_out, one.weight.values()});
    for (const PairNarrow& narrow : narrow_of(*this, one.narrow, true)) sum.narrow.push_back(narrow);
  }
  sum.out = d_x;
  if (!add_up_pairs(*this, {sum})) Backend::transposed_products(products, d_x);
}

// One of several whose weights are not all plain, or the first.
void CpuBackend::add_transposed(const TransposedProduct& one, const Matrix& d_x, bool accumulate) {
  if (may_be_of_pairs(*this, one.d_out, one.weight)) {
    Buffer owner;
    const PairSum sum{{{one.d_out, numbers_of(one.weight, one.d_out.dtype, owner)}},
                      false,
                      d_x,
                      accumulate ? d_x : Matrix{},
                      narrow_of(*this, one.narrow, true)};
    if (add_up_pairs(*this, {sum})) return;
  }
  transposed_product(one.d_out, one.weight, d_x, accumulate);
  if (one.narrow.weight != nullptr) narrow_input_gradient(one.narrow.narrow, *one.narrow.weight, {}, d_x);
}

void CpuBackend::gradient_products(const Matrix& x, const std::vector<GradientProduct>& products) {
  std::vector<PairGradient> gradients;
  for (const GradientProduct& one : products) {
    gradients.push_back({one.d_out, one.d_weight, one.accumulate, one.squares});
  }
  if (!add_pair_gradients(*this, x, gradients)) Backend::gradient_products(x, products);
}

}  // namespace tempora
