#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu_backend.h"
#include "kernels/elements.h"
#include "kernels/packed.h"
#include "parallel.h"
#include "quantised.h"
#include "views.h"
#include "weight.h"

namespace tempora {
namespace {

// Multiply-adds that are worth waking threads for: what a core does in some 20 µs. A quarter of that made decoding of
// one sample 6 % slower on two cores.
constexpr std::int64_t kProductGrain = 1 << 17;
// Rows that are worth a thread of their own where there are few panels: some of the kernel's blocks.
constexpr std::int64_t kRowGrain = 48;
// Panels of a quantised weight that are dequantised together.
constexpr std::int64_t kPanelsAtOnce = 4;

std::int64_t padded_k(const PackedKernels& kernels, DType dtype, std::int64_t k) {
  const std::int64_t unit = kernels.k_unit[index_of(dtype)];
  return (k + unit - 1) / unit * unit;
}

std::size_t panel_bytes(const PackedKernels& kernels, std::int64_t padded_k, DType dtype) {
  return static_cast<std::size_t>(kernels.panel_columns * padded_k) * size_of(dtype);
}

// x as the kernel reads it: f32 for widened weights, rows padded as the weight's are.
struct Input {
  const void* data = nullptr;
  std::int64_t row = 0;
  Buffer buffer;
};

Input input_of(CpuBackend& backend, const Matrix& x, bool widen, std::int64_t padded_k) {
  const bool pad = padded_k != x.cols;
  if (!widen && !pad) return {x.data, x.row_stride(), Buffer()};
  const std::size_t size = widen ? sizeof(float) : size_of(x.dtype);
  Input input{nullptr, padded_k, backend.workspace(static_cast<std::size_t>(x.rows * padded_k) * size)};
  input.data = input.buffer.data();
  const ElementKernels& elements = element_kernels_for(backend.isa());
  parallel_ranges(backend.threads(), x.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      char* row = static_cast<char*>(input.buffer.data()) + static_cast<std::size_t>(r * padded_k) * size;
      const void* from = element(x, r * x.row_stride());
      if (widen) {
        elements.widen(static_cast<const std::uint16_t*>(from), reinterpret_cast<float*>(row), x.cols);
      } else {
        std::memcpy(row, from, static_cast<std::size_t>(x.cols) * size);
      }
      if (pad)
        std::memset(row + static_cast<std::size_t>(x.cols) * size, 0,
                    static_cast<std::size_t>(padded_k - x.cols) * size);
    }
  });
  return input;
}

}  // namespace

const WeightPanels& panels_of(CpuBackend& backend, const CpuWeight& weight) {
  if (weight.panels.data) return weight.panels;
  const PackedKernels& kernels = packed_kernels_for(backend.isa());
  const Matrix values = weight.values();
  WeightPanels panels;
  panels.padded_k = padded_k(kernels, values.dtype, values.cols);
  const std::int64_t columns = kernels.panel_columns;
  const std::int64_t count = (values.rows + columns - 1) / columns;
  const std::size_t bytes = panel_bytes(kernels, panels.padded_k, values.dtype);
  panels.data = backend.allocate(static_cast<std::size_t>(count) * bytes, MemoryUse::weights);
  parallel_ranges(backend.threads(), count, 2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t first = panel * columns;
      kernels.pack[index_of(values.dtype)](
          values.data, first, std::min(columns, values.rows - first), values.cols,
          static_cast<char*>(panels.data.data()) + static_cast<std::size_t>(panel) * bytes);
    }
  });
  weight.panels = std::move(panels);
  return weight.panels;
}

namespace {

// A plain weight's product with `x`, which is as the kernel reads it.
PackedProduct product_of(CpuBackend& backend, const Input& input, std::int64_t rows, const Weight& weight,
                         const Matrix& out, bool accumulate) {
  const WeightPanels& packed = panels_of(backend, static_cast<const CpuWeight&>(weight));
  PackedProduct product;
  product.x = input.data;
  product.row_x = input.row;
  product.rows = rows;
  product.k = packed.padded_k;
  product.n = weight.rows;
  product.panels = packed.data.data();
  product.out = out.data;
  product.row_out = out.row_stride();
  product.out_bf16 = out.dtype == DType::bf16;
  product.accumulate = accumulate;
  return product;
}

// The panels of the product.
Panels panels_in(const PackedKernels& kernels, const PackedProduct& product, DType dtype) {
  return {static_cast<const char*>(product.panels), (product.n + kernels.panel_columns - 1) / kernels.panel_columns,
          static_cast<std::int64_t>(panel_bytes(kernels, product.k, dtype))};
}

bool widens(const PackedKernels& kernels, DType dtype) { return dtype == DType::bf16 && !kernels.bf16_takes_bf16; }

// Whether so many multiply-adds are left to the calling thread.
bool is_small(std::int64_t multiply_adds) {
  return multiply_adds < (active_team == nullptr ? kProductGrain : kProductGrain / kTeamGain);
}

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

}  // namespace

void CpuBackend::row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  require(x.cols == weight.cols && out.rows == x.rows && out.cols == weight.rows,
          "row_product: x, weight and out fit each other");
  if (x.rows == 0 || weight.rows == 0) return;
  if (!is_plain(weight.format)) return quantised_row_product(x, weight, out, accumulate);
  require(x.dtype == weight.values().dtype, "row_product: x has the weight's type");
  const PackedKernels& kernels = packed_kernels_for(isa_);
  const bool widen = widens(kernels, x.dtype);
  const Input input = input_of(*this, x, widen, padded_k(kernels, x.dtype, x.cols));
  const PackedProduct product = product_of(*this, input, x.rows, weight, out, accumulate);
  const std::int64_t panels = (weight.rows + kernels.panel_columns - 1) / kernels.panel_columns;
  const auto multiply = kernels.multiply[index_of(x.dtype)];
  const bool small = is_small(x.rows * weight.size());
  if (panels >= 2 * threads_ || x.rows < 2 * kRowGrain) {
    const PanelRun next = panel_order_.read({{panels_in(kernels, product, x.dtype)}});
    parallel_ranges(threads_, panels, small ? kNever : 2, 1, [&](std::int64_t begin, std::int64_t end) {
      PackedProduct part = product;
      part.following = next.at(begin, panels, threads_);
      multiply(part, begin, end);
    });
    return;
  }
  // Few panels, many rows: the rows are split.
  const std::size_t row_bytes = static_cast<std::size_t>(input.row) * (widen ? sizeof(float) : size_of(x.dtype));
  parallel_ranges(threads_, x.rows, small ? kNever : kRowGrain, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    PackedProduct part = product;
    part.x = static_cast<const char*>(product.x) + static_cast<std::size_t>(begin) * row_bytes;
    part.out = out.row_range(begin, end - begin).data;
    part.rows = end - begin;
    multiply(part, 0, panels);
  });
}

// The panels of all weights in a row are split among the threads, at once.
void CpuBackend::row_products(const Matrix& x, const std::vector<WeightProduct>& products) {
  const bool packed = std::all_of(products.begin(), products.end(), [](const WeightProduct& one) {
    return is_plain(one.weight.format) && one.weight.rows > 0;
  });
  if (!packed || x.rows == 0) return Backend::row_products(x, products);
  const PackedKernels& kernels = packed_kernels_for(isa_);
  const Input input = input_of(*this, x, widens(kernels, x.dtype), padded_k(kernels, x.dtype, x.cols));
  struct Part {
    PackedProduct product;
    std::int64_t begin, end;  // of all panels
  };
  std::vector<Part> parts;
  std::int64_t panels = 0, numbers = 0;
  for (const WeightProduct& one : products) {
    require(x.cols == one.weight.cols && one.out.rows == x.rows && one.out.cols == one.weight.rows,
            "row_products: x, weights and outs fit each other");
    require(x.dtype == one.weight.values().dtype, "row_products: x has the weights' type");
    const std::int64_t own = (one.weight.rows + kernels.panel_columns - 1) / kernels.panel_columns;
    parts.push_back({product_of(*this, input, x.rows, one.weight, one.out, false), panels, panels + own});
    panels += own;
    numbers += one.weight.size();
  }
  const auto multiply = kernels.multiply[index_of(x.dtype)];
  if (panels < 2 * threads_ && x.rows >= 2 * kRowGrain) return Backend::row_products(x, products);
  PanelRun run;
  for (std::size_t i = 0; i < std::min(parts.size(), run.parts.size()); ++i) {
    run.parts[i] = panels_in(kernels, parts[i].product, x.dtype);
  }
  const PanelRun next = panel_order_.read(run);
  parallel_ranges(threads_, panels, is_small(x.rows * numbers) ? kNever : 2, 1,
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::size_t i = 0; i < parts.size(); ++i) {
                      PackedProduct product = parts[i].product;
                      const std::int64_t first = std::max(begin, parts[i].begin), last = std::min(end, parts[i].end);
                      if (first >= last) continue;
                      product.following = last < end ? parts[i + 1].product.panels : next.at(begin, panels, threads_);
                      multiply(product, first - parts[i].begin, last - parts[i].begin);
                    }
                  });
}

// A thread multiplies by the same panels of both, and has what it joins in its caches.
void CpuBackend::row_swiglu(const Matrix& x, const WeightProduct& gate, const WeightProduct& up, const Matrix& out) {
  const bool packed = is_plain(gate.weight.format) && is_plain(up.weight.format) && gate.weight.rows == up.weight.rows;
  if (!packed || x.rows == 0 || x.rows >= 2 * kRowGrain) return Backend::row_swiglu(x, gate, up, out);
  for (const WeightProduct* one : {&gate, &up}) {
    require(x.cols == one->weight.cols && one->out.rows == x.rows && one->out.cols == one->weight.rows &&
                x.dtype == one->weight.values().dtype && one->out.dtype == out.dtype && out.rows == x.rows,
            "row_swiglu: x, weights and outs fit each other");
  }
  const PackedKernels& kernels = packed_kernels_for(isa_);
  const Input input = input_of(*this, x, widens(kernels, x.dtype), padded_k(kernels, x.dtype, x.cols));
  const PackedProduct gates = product_of(*this, input, x.rows, gate.weight, gate.out, false);
  const PackedProduct ups = product_of(*this, input, x.rows, up.weight, up.out, false);
  const auto multiply = kernels.multiply[index_of(x.dtype)];
  const auto join = element_kernels_for(isa_).swiglu[index_of(out.dtype)];
  const std::int64_t columns = kernels.panel_columns, panels = (gate.weight.rows + columns - 1) / columns;
  const std::size_t bytes = panel_bytes(kernels, gates.k, x.dtype);
  const PanelRun next = panel_order_.read({{panels_in(kernels, gates, x.dtype)}});
  const bool small = is_small(x.rows * (gate.weight.size() + up.weight.size()));
  parallel_ranges(threads_, panels, small ? kNever : 2, 1, [&](std::int64_t begin, std::int64_t end) {
    PackedProduct first = gates, second = ups;
    first.following = static_cast<const char*>(ups.panels) + static_cast<std::size_t>(begin) * bytes;
    second.following = next.at(begin, panels, threads_);
    multiply(first, begin, end);
    multiply(second, begin, end);
    const std::int64_t column = begin * columns, count = std::min(out.cols, end * columns) - column;
    for (std::int64_t row = 0; row < x.rows; ++row) {
      const auto at = [&](const Matrix& m) { return element(m, row * m.row_stride() + column); };
      join(at(gate.out), at(up.out), at(out), count);
    }
  });
}

// Some panels of the weight at a time are dequantised, packed and multiplied by: they stay in the caches.
void CpuBackend::quantised_row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  const PackedKernels& kernels = packed_kernels_for(isa_);
  const std::int64_t k = padded_k(kernels, x.dtype, weight.cols);
  const Input input = input_of(*this, x, widens(kernels, x.dtype), k);
  const std::int64_t columns = kernels.panel_columns, at_once = kPanelsAtOnce * columns;
  const std::size_t bytes = panel_bytes(kernels, k, x.dtype);
  const std::size_t row_bytes = static_cast<std::size_t>(at_once * weight.cols) * size_of(x.dtype);
  const std::size_t scratch_bytes = (row_bytes + kPanelsAtOnce * bytes + 63) / 64 * 64;
  const Buffer scratch = workspace(scratch_bytes * static_cast<std::size_t>(threads_));
  const std::int64_t items = (weight.rows + at_once - 1) / at_once;
  parallel_items(threads_, items, [&](std::int64_t item, int thread) {
    char* rows = static_cast<char*>(scratch.data()) + scratch_bytes * static_cast<std::size_t>(thread);
    char* panels = rows + row_bytes;
    const std::int64_t first = item * at_once, count = std::min(at_once, weight.rows - first);
    dequantise_rows(isa_, weight, first, count, x.dtype, rows);
    const std::int64_t panel_count = (count + columns - 1) / columns;
    for (std::int64_t panel = 0; panel < panel_count; ++panel) {
      kernels.pack[index_of(x.dtype)](rows, panel * columns, std::min(columns, count - panel * columns), weight.cols,
                                      panels + static_cast<std::size_t>(panel) * bytes);
    }
    PackedProduct product;
    product.x = input.data;
    product.row_x = input.row;
    product.rows = x.rows;
    product.k = k;
    product.n = count;
    product.panels = panels;
    product.out = out.column_range(first, count).data;
    product.row_out = out.row_stride();
    product.out_bf16 = out.dtype == DType::bf16;
    product.accumulate = accumulate;
    kernels.multiply[index_of(x.dtype)](product, 0, panel_count);
  });
}

}  // namespace tempora
