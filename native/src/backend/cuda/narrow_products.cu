// The products of adapters. What these kernels do not take, because it is f32 or no multiple of 16 bytes lies in a row,
// goes by the parts that backend/narrow_products.cpp has.
#include <algorithm>

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

void CudaBackend::narrow_product(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed,
                                 float factor, const Matrix& narrow) {
  if (narrow.size() == 0) return;
  if (!fits_tiles(x, narrow)) return Backend::narrow_product(x, dropout, weight, transposed, factor, narrow);
  const NarrowNumbers n = numbers_of(x, narrow, x.cols, inputs_of_split(x.cols));
  const std::int64_t size = narrow.size();
  const Buffer partial = allocate(sizeof(float) * static_cast<std::size_t>(size * n.splits), MemoryUse::workspace);
  const DropoutView view(dropout);
  const dim3 grid(blocks_for(x.rows, kNarrowRows), static_cast<unsigned>(n.splits));
  with_rank(narrow.cols, [&]<int rank>() {
    with_flag(transposed, [&]<bool over>() {
      with_flag(view.threshold > 0, [&]<bool dropped>() {
        launch("narrow_product", narrow_product_kernel<rank, over, dropped>,
               LaunchShape{grid, kTileThreads, NarrowProductTile<rank>::kSharedBytes}, stream_, n,
               static_cast<const bf16*>(x.data), weight.values().f32(), view, static_cast<float*>(partial.data()));
      });
    });
  });
  launch("narrow_product, splits", add_product_splits_kernel, blocks_for(size, kBlock), kBlock, stream_, n,
         static_cast<const float*>(partial.data()), factor * view.scale, narrow.f32());
}

// A product's splits follow from its inputs, and what fits from how rows lie: it is row-stable as it is.
bool CudaBackend::narrow_row_product(const Matrix& x, const Weight& weight, float factor, const Matrix& narrow) {
  if (!fits_tiles(x, narrow)) return false;
  narrow_product(x, {}, weight, false, factor, narrow);
  return true;
}

bool CudaBackend::narrow_input_gradient(const Matrix& narrow, const Weight& weight, const Dropout& dropout,
                                        const Matrix& d_x) {
  return widen(narrow, weight.values(), true, dropout, d_x, true);
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

// out (+)= narrow f32 [T,r] · weightᵀ f32 [N,r], or where `transposed` · weight [r,N], after dropout. False, and
// nothing done, where rows are not whole pieces of 16 bytes or the rank is too large: that depends on no number of
// rows.
bool CudaBackend::widen(const Matrix& narrow, const Matrix& weight, bool transposed, const Dropout& dropout,
                        const Matrix& out, bool accumulate) {
  const bool fits = narrow.dtype == DType::f32 && weight.dtype == DType::f32 && fits_rank(narrow.cols) &&
                    in_pieces(narrow, 4) && in_pieces(weight, 4) && out.cols % 8 == 0 &&
                    in_pieces(out, out.dtype == DType::bf16 ? 8 : 4);
  if (!fits) return false;
  const WidenNumbers n{narrow.row_stride(), out.row_stride(), static_cast<int>(out.rows), static_cast<int>(out.cols),
                       static_cast<int>(narrow.cols)};
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
  return true;
}

}  // namespace tempora
