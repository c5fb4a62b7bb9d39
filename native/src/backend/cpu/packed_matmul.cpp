#include <cstring>

#include "cpu_backend.h"
#include "kernels/elements.h"
#include "kernels/packed.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

class CpuPackedWeight : public PackedWeight {
 public:
  std::size_t bytes() const override { return panels.bytes(); }

  Buffer panels;
  DType dtype = DType::f32;
  std::int64_t n = 0, k = 0;
  std::int64_t padded_k = 0;
};

// Multiply-adds that are worth waking threads for.
constexpr std::int64_t kProductGrain = 1 << 17;

// x as the kernel reads it: f32 for widened weights, rows padded to an even number of elements for pairs.
struct Input {
  const void* data = nullptr;
  std::int64_t row = 0;
  Buffer buffer;
};

}  // namespace

std::unique_ptr<PackedWeight> CpuBackend::pack(const Matrix& weight) {
  const PackedKernels& kernels = packed_kernels_for(isa_);
  auto packed = std::make_unique<CpuPackedWeight>();
  packed->dtype = weight.dtype;
  packed->n = weight.rows;
  packed->k = weight.cols;
  packed->padded_k = weight.dtype == DType::bf16 ? (weight.cols + 1) / 2 * 2 : weight.cols;
  const std::int64_t columns = kernels.panel_columns;
  const std::int64_t panels = (weight.rows + columns - 1) / columns;
  const std::int64_t panel_elements = columns * packed->padded_k;
  packed->panels =
      allocate(static_cast<std::size_t>(panels * panel_elements) * size_of(weight.dtype), MemoryUse::weights);
  parallel_ranges(threads_, panels, 2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t first = panel * columns;
      kernels.pack[index_of(weight.dtype)](
          weight.data, first, std::min(columns, weight.rows - first), weight.cols,
          static_cast<char*>(packed->panels.data()) +
              static_cast<std::size_t>(panel * panel_elements) * size_of(weight.dtype));
    }
  });
  return packed;
}

void CpuBackend::packed_matmul(const Matrix& x, const PackedWeight& weight, const Matrix& out, bool accumulate) {
  const auto& packed = dynamic_cast<const CpuPackedWeight&>(weight);
  require(x.dtype == packed.dtype && x.cols == packed.k && out.rows == x.rows && out.cols == packed.n,
          "packed_matmul: x, weight and out fit each other");
  if (x.rows == 0 || packed.n == 0) return;
  const PackedKernels& kernels = packed_kernels_for(isa_);
  const bool widen = x.dtype == DType::bf16 && !kernels.bf16_takes_bf16;
  const bool pad = packed.padded_k != packed.k;

  Input input{x.data, x.cols, Buffer()};
  if (widen || pad) {
    const std::size_t size = widen ? sizeof(float) : size_of(x.dtype);
    input.buffer = workspace(static_cast<std::size_t>(x.rows * packed.padded_k) * size);
    input.data = input.buffer.data();
    input.row = packed.padded_k;
    if (pad) std::memset(input.buffer.data(), 0, input.buffer.bytes());
    const ElementKernels& elements = element_kernels_for(isa_);
    for (std::int64_t r = 0; r < x.rows; ++r) {
      char* row = static_cast<char*>(input.buffer.data()) + static_cast<std::size_t>(r * input.row) * size;
      const void* from = element(x, r * x.cols);
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
  product.n = packed.n;
  product.panels = packed.panels.data();
  product.out = out.data;
  product.out_bf16 = out.dtype == DType::bf16;
  product.accumulate = accumulate;
  const std::int64_t panels = (packed.n + kernels.panel_columns - 1) / kernels.panel_columns;
  const std::int64_t grain = x.rows * packed.n * packed.k < kProductGrain ? panels + 1 : 2;
  parallel_ranges(threads_, panels, grain, 1, [&](std::int64_t begin, std::int64_t end) {
    kernels.multiply[index_of(packed.dtype)](product, begin, end);
  });
}

}  // namespace tempora
