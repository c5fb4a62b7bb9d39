#include <cstring>

#include "cpu_backend.h"
#include "kernels/elements.h"
#include "kernels/packed.h"
#include "parallel.h"
#include "views.h"
#include "weight.h"

namespace tempora {
namespace {

// Multiply-adds that are worth waking threads for.
constexpr std::int64_t kProductGrain = 1 << 17;

// x as the kernel reads it: f32 for widened weights, rows padded to an even number of elements for pairs.
struct Input {
  const void* data = nullptr;
  std::int64_t row = 0;
  Buffer buffer;
};

// The panels of a weight, made where they are not there. Used by one thread at a time.
const WeightPanels& panels_of(CpuBackend& backend, const CpuWeight& weight) {
  if (weight.panels.data) return weight.panels;
  const PackedKernels& kernels = packed_kernels_for(backend.isa());
  const Matrix values = weight.values();
  WeightPanels panels;
  panels.padded_k = values.dtype == DType::bf16 ? (values.cols + 1) / 2 * 2 : values.cols;
  const std::int64_t columns = kernels.panel_columns;
  const std::int64_t count = (values.rows + columns - 1) / columns;
  const std::size_t panel_bytes = static_cast<std::size_t>(columns * panels.padded_k) * size_of(values.dtype);
  panels.data = backend.allocate(static_cast<std::size_t>(count) * panel_bytes, MemoryUse::weights);
  parallel_ranges(backend.threads(), count, 2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t first = panel * columns;
      kernels.pack[index_of(values.dtype)](
          values.data, first, std::min(columns, values.rows - first), values.cols,
          static_cast<char*>(panels.data.data()) + static_cast<std::size_t>(panel) * panel_bytes);
    }
  });
  weight.panels = std::move(panels);
  return weight.panels;
}

}  // namespace

void CpuBackend::row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  require(x.dtype == weight.values().dtype && x.cols == weight.cols && out.rows == x.rows && out.cols == weight.rows,
          "row_product: x, weight and out fit each other");
  if (x.rows == 0 || weight.rows == 0) return;
  const PackedKernels& kernels = packed_kernels_for(isa_);
  const WeightPanels& packed = panels_of(*this, static_cast<const CpuWeight&>(weight));
  const bool widen = x.dtype == DType::bf16 && !kernels.bf16_takes_bf16;
  const bool pad = packed.padded_k != weight.cols;

  Input input{x.data, x.row_stride(), Buffer()};
  if (widen || pad) {
    const std::size_t size = widen ? sizeof(float) : size_of(x.dtype);
    input.buffer = workspace(static_cast<std::size_t>(x.rows * packed.padded_k) * size);
    input.data = input.buffer.data();
    input.row = packed.padded_k;
    if (pad) std::memset(input.buffer.data(), 0, input.buffer.bytes());
    const ElementKernels& elements = element_kernels_for(isa_);
    for (std::int64_t r = 0; r < x.rows; ++r) {
      char* row = static_cast<char*>(input.buffer.data()) + static_cast<std::size_t>(r * input.row) * size;
      const void* from = element(x, r * x.row_stride());
      if (widen) {
        elements.widen(static_cast<const std::uint16_t*>(from), reinterpret_cast<float*>(row), x.cols);
      } else {
        std::memcpy(row, from, static_cast<std::size_t>(x.cols) * size);
      }
    }
  }
  PackedProduct product;
  product.x = input.data;
  product.row_x = input.row;
  product.rows = x.rows;
  product.k = packed.padded_k;
  product.n = weight.rows;
  product.panels = packed.data.data();
  product.out = out.data;
  product.row_out = out.row_stride();
  product.out_bf16 = out.dtype == DType::bf16;
  product.accumulate = accumulate;
  const std::int64_t panels = (weight.rows + kernels.panel_columns - 1) / kernels.panel_columns;
  const std::int64_t grain = x.rows * weight.size() < kProductGrain ? panels + 1 : 2;
  parallel_ranges(threads_, panels, grain, 1, [&](std::int64_t begin, std::int64_t end) {
    kernels.multiply[index_of(x.dtype)](product, begin, end);
  });
}

}  // namespace tempora
