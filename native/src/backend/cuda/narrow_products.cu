// The products of adapters. What these kernels do not take, because it is f32 or no multiple of 16 bytes lies in a row,
// goes by the parts that backend/narrow_products.cpp has.
#include <algorithm>
#include <utility>

#include "cuda_backend.h"
#include "narrow_tiles.cuh"
#include "widen.cuh"

namespace tempora {
namespace {

using namespace device;

// Calls work.operator()<padded rank>().
template <typename Work>
void with_rank(std::int64_t rank, Work work) {
  if (rank <= 16) {
    work.template operator()<16>();
  } else if (rank <= 32) {
    work.template operator()<32>();
  } else {
    work.template operator()<64>();
  }
}

template <typename Work>
void with_flag(bool flag, Work work) {
  if (flag) {
    work.template operator()<true>();
  } else {
    work.template operator()<false>();
  }
}

bool fits_rank(std::int64_t rank) { return rank % 4 == 0 && rank <= kLargestNarrow; }

bool in_pieces(const Matrix& m, std::int64_t piece) {
  return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.row_stride() % piece == 0;
}

// x is read in pieces of 16 bytes.
bool fits_tiles(const Matrix& x, const Matrix& narrow) {
  return x.dtype == DType::bf16 && x.cols % 8 == 0 && in_pieces(x, 8) && fits_rank(narrow.cols) && in_pieces(narrow, 4);
}

// Parts of a weight's inputs, by their number alone: eight where there are enough.
int inputs_of_split(std::int64_t inputs) {
  const std::int64_t eighth = (inputs / 8 + kNarrowInputs - 1) / kNarrowInputs * kNarrowInputs;
  return static_cast<int>(std::clamp<std::int64_t>(eighth, 256, 1024));
}

// Of many rows sixteen parts, so that the gradient of a narrow layer keeps the device busy.
int rows_of_split(std::int64_t rows) {
  const std::int64_t part = ((rows + 15) / 16 + kGradientRows - 1) / kGradientRows * kGradientRows;
  return static_cast<int>(std::max<std::int64_t>(part, 256));
}

NarrowNumbers numbers_of(const Matrix& x, const Matrix& narrow, std::int64_t along, int split) {
  return {x.row_stride(),
          narrow.row_stride(),
          static_cast<int>(x.rows),
          static_cast<int>(x.cols),
          static_cast<int>(narrow.cols),
          split,
          static_cast<int>((along + split - 1) / split)};
}

}  // namespace

bool CudaBackend::fits_widening(const Matrix& narrow, const Matrix& weight, const Matrix& out) {
  return narrow.dtype == DType::f32 && weight.dtype == DType::f32 && fits_rank(narrow.cols) && in_pieces(narrow, 4) &&
         in_pieces(weight, 4) && out.cols % 8 == 0 && in_pieces(out, out.dtype == DType::bf16 ? 8 : 4);
}

// Σ over splits of x with a narrow weight, f32 [splits, T, r]; the splits follow from the inputs alone.
Buffer CudaBackend::narrow_parts(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed,
                                 const NarrowNumbers& n) {
  Buffer partial = allocate(sizeof(float) * n.rows * static_cast<std::size_t>(n.rank) * n.splits, MemoryUse::workspace);
  const DropoutView view(dropout);
  const dim3 grid(blocks_for(x.rows, kNarrowRows), static_cast<unsigned>(n.splits));
  with_rank(n.rank, [&]<int rank>() {
    with_flag(transposed, [&]<bool over>() {
      with_flag(view.threshold > 0, [&]<bool dropped>() {
        launch("narrow_product", narrow_product_kernel<rank, over, dropped>,
               LaunchShape{grid, kTileThreads, NarrowProductTile<rank>::kSharedBytes}, stream_, n,
               static_cast<const bf16*>(x.data), weight.values().f32(), view, static_cast<float*>(partial.data()));
      });
    });
  });
  return partial;
}

void CudaBackend::narrow_product(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed,
                                 float factor, const Matrix& narrow) {
  if (narrow.size() == 0) return;
  if (!fits_tiles(x, narrow)) return Backend::narrow_product(x, dropout, weight, transposed, factor, narrow);
  const NarrowNumbers n = numbers_of(x, narrow, x.cols, inputs_of_split(x.cols));
  const Buffer partial = narrow_parts(x, dropout, weight, transposed, n);
  launch("narrow_product, splits", add_product_splits_kernel, blocks_for(narrow.size(), kBlock), kBlock, stream_, n,
         static_cast<const float*>(partial.data()), factor * DropoutView(dropout).scale, narrow.f32());
}

// Of few rows, as a decoding step has, the product with b adds up the splits of that with a: one launch less a module.
// Both ways give the same bits.
bool CudaBackend::adapter_rows(const Matrix& x, const Weight& a, float factor, const Weight& b, const Matrix& out) {
  constexpr std::int64_t kFewRows = 512;
  const Matrix narrow{nullptr, DType::f32, x.rows, a.rows};
  if (!fits_tiles(x, narrow) || !fits_widening(narrow, b.values(), out)) return false;
  if (out.size() == 0) return true;
  const NarrowNumbers n = numbers_of(x, narrow, x.cols, inputs_of_split(x.cols));
  Buffer sums = narrow_parts(x, {}, a, false, n);
  int splits = n.splits;
  if (x.rows > kFewRows && splits > 1) {
    const Buffer parts = std::exchange(sums, allocate(narrow.bytes(), MemoryUse::workspace));
    launch("narrow_product, splits", add_product_splits_kernel, blocks_for(narrow.size(), kBlock), kBlock, stream_, n,
           static_cast<const float*>(parts.data()), factor, static_cast<float*>(sums.data()));
    splits = 1;
    factor = 1;
  }
  widen({sums.data(), DType::f32, narrow.rows, narrow.cols}, b.values(), false, {}, out, true, splits, factor);
  return true;
}

bool CudaBackend::narrow_input_gradient(const Matrix& narrow, const Weight& weight, const Dropout& dropout,
                                        const Matrix& d_x) {
  if (!fits_widening(narrow, weight.values(), d_x)) return false;
  widen(narrow, weight.values(), true, dropout, d_x, true);
  return true;
}

void CudaBackend::narrow_gradient(const Matrix& x, const Dropout& dropout, const Matrix& narrow, bool transposed,
                                  const Matrix& gradient) {
  if (gradient.size() == 0 || x.rows == 0) return;
  if (!fits_tiles(x, narrow)) return Backend::narrow_gradient(x, dropout, narrow, transposed, gradient);
  require_dense("narrow_gradient", {gradient});
  const NarrowNumbers n = numbers_of(x, narrow, x.rows, rows_of_split(x.rows));
  const std::int64_t size = gradient.size();
  const Buffer partial = allocate(sizeof(float) * static_cast<std::size_t>(size * n.splits), MemoryUse::workspace);
  const DropoutView view(dropout);
  const dim3 grid(blocks_for(x.cols, kGradientColumns), static_cast<unsigned>(n.splits));
  with_rank(narrow.cols, [&]<int rank>() {
    with_flag(transposed, [&]<bool over>() {
      with_flag(view.threshold > 0, [&]<bool dropped>() {
        launch("narrow_gradient", narrow_gradient_kernel<rank, over, dropped>,
               LaunchShape{grid, kTileThreads, NarrowGradientTile<rank>::kSharedBytes}, stream_, n,
               static_cast<const bf16*>(x.data), narrow.f32(), view, static_cast<float*>(partial.data()));
      });
    });
  });
  launch("narrow_gradient, splits", add_gradient_splits_kernel, blocks_for(size, kBlock), kBlock, stream_, n,
         static_cast<const float*>(partial.data()), view.scale, gradient.f32());
}

// out (+)= factor · (narrow f32 [T,r], or the sum of `splits` of them) · weightᵀ f32 [N,r], or where `transposed` ·
// weight [r,N], after dropout.
void CudaBackend::widen(const Matrix& narrow, const Matrix& weight, bool transposed, const Dropout& dropout,
                        const Matrix& out, bool accumulate, int splits, float factor) {
  if (out.size() == 0) return;
  const WidenNumbers n{narrow.row_stride(),
                       out.row_stride(),
                       static_cast<int>(out.rows),
                       static_cast<int>(out.cols),
                       static_cast<int>(narrow.cols),
                       splits,
                       factor};
  const DropoutView view(dropout);
  with_rank(narrow.cols, [&]<int rank>() {
    const LaunchShape shape{dim3(blocks_for(out.cols, kWidenColumns), blocks_for(out.rows, 16 * kWidenSteps<rank>)),
                            kTileThreads};
    with_type(out.dtype, [&]<typename Out>() {
      const auto launch_widen = [&]<bool over, bool dropped>() {
        launch("widen", widen_kernel<rank, over, dropped, Out>, shape, stream_, n,
               static_cast<const float*>(narrow.data), static_cast<const float*>(weight.data), view,
               static_cast<Out*>(out.data), accumulate);
      };
      if (!transposed) return launch_widen.template operator()<false, false>();
      with_flag(view.threshold > 0, [&]<bool dropped>() { launch_widen.template operator()<true, dropped>(); });
    });
  });
}

}  // namespace tempora
