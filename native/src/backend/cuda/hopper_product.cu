#include "hopper_product.cuh"

#include <string>

#include "check.h"

namespace tempora {
namespace {

using namespace device;

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// By the runtime, so that nothing is linked to the driver's library, which a machine without a device lacks.
EncodeTiled find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  TEMPORA_CUDA_CHECK(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) throw std::runtime_error("CUDA: the driver lacks cuTensorMapEncodeTiled");
  return reinterpret_cast<EncodeTiled>(function);
}

// Tiles from which on a block takes all splits: partial sums of many rows cost more to write than they spread.
constexpr unsigned kEnoughTiles = 96;
constexpr int kMostRows = 256, kLeastRowsOfMany = 64;

unsigned tiles_of(const RowProductNumbers& n, int rows) {
  return blocks_for(n.rows, rows) * blocks_for(n.outputs, kHopperOutputs);
}

// Rows of a tile: as many as there are, fewer where that keeps all multiprocessors busy. 256 rows' sums leave no
// registers for a second set.
int tile_rows(const RowProductNumbers& n) {
  const int most = n.splits > 1 ? kMostRows / 2 : kMostRows;
  int rows = 8;
  while (rows < n.rows && rows < most) rows *= 2;
  for (int fewer = rows; fewer >= kLeastRowsOfMany; fewer /= 2) {
    if (tiles_of(n, fewer) >= kEnoughTiles) return fewer;
  }
  return rows;
}

class Sm90Product : public HopperProduct {
 public:
  Sm90Product() : encode_(find_encode()) {}

  bool apart(const RowProductNumbers& n) const override {
    return n.splits > 1 && tiles_of(n, tile_rows(n)) < kEnoughTiles;
  }

  void run(const RowProductNumbers& n, const void* x, const void* weight, float* partial, const Matrix& out,
           bool accumulate, cudaStream_t stream) const override {
    with_type(out.dtype, [&]<typename Out>() {
      const auto with = [&]<int P, bool totals>() {
        launch_tiles<P, totals, Out>(n, x, weight, partial, static_cast<Out*>(out.data), accumulate, stream);
      };
      switch (tile_rows(n)) {
        case 8:
          return with.template operator()<1, true>();
        case 16:
          return with.template operator()<2, true>();
        case 32:
          return with.template operator()<4, true>();
        case 64:
          return with.template operator()<8, true>();
        case 128:
          return n.splits > 1 && partial == nullptr ? with.template operator()<16, true>()
                                                    : with.template operator()<16, false>();
        default:
          return with.template operator()<32, false>();
      }
    });
  }

 private:
  // Boxes of 64 columns and `box_rows` rows of a matrix.
  CUtensorMap map_of(const void* data, std::int64_t rows, std::int64_t cols, std::int64_t stride, int box_rows) const {
    CUtensorMap map;
    const cuuint64_t size[] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
    const cuuint64_t row_bytes[] = {static_cast<cuuint64_t>(stride) * sizeof(bf16)};
    const cuuint32_t box[] = {kHopperInputs, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
    const CUresult status = encode_(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), size, row_bytes,
                                    box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status == CUDA_SUCCESS) return map;
    throw std::runtime_error("CUDA: cuTensorMapEncodeTiled of " + std::to_string(rows) + " x " + std::to_string(cols) +
                             " failed with " + std::to_string(status));
  }

  template <int P, bool totals, typename Out>
  void launch_tiles(const RowProductNumbers& n, const void* x, const void* weight, float* partial, Out* out,
                    bool accumulate, cudaStream_t stream) const {
    using Tile = HopperTile<P>;
    const dim3 grid(tiles_of(n, Tile::kRows), partial == nullptr ? 1 : static_cast<unsigned>(n.splits));
    launch("row_product, sm_90a", hopper_product_kernel<P, totals, Out>,
           LaunchShape{grid, kHopperThreads, Tile::kSharedBytes}, stream,
           map_of(x, n.rows, n.inputs, n.x_row, Tile::kRows),
           map_of(weight, n.outputs, n.inputs, n.inputs, kHopperOutputs), n, partial, out, accumulate);
  }

  EncodeTiled encode_;
};

}  // namespace

std::unique_ptr<HopperProduct> HopperProduct::make() {
  int major = 0, minor = 0;
  TEMPORA_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  TEMPORA_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  if (major != 9 || minor != 0) return nullptr;
  return std::make_unique<Sm90Product>();
}

}  // namespace tempora
