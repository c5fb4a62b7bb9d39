#include "hopper_product.cuh"

#include <string>

#include "check.h"
#include "hopper_product.h"

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

constexpr int kMostRows = 256, kLeastRowsOfMany = 64;

// Rows of a tile: as many as there are, fewer where that keeps all multiprocessors busy. 256 rows' sums leave no
// registers for a second set.
int tile_rows(const RowProducts& products) {
  const int most = products.has_splits() ? kMostRows / 2 : kMostRows;
  int rows = 8;
  while (rows < products.rows && rows < most) rows *= 2;
  for (int fewer = rows; fewer >= kLeastRowsOfMany; fewer /= 2) {
    if (products.tiles(fewer, kHopperOutputs) >= kEnoughTiles) return fewer;
  }
  return rows;
}

class Sm90Product : public HopperProduct {
 public:
  Sm90Product() : encode_(find_encode()) {}

  bool apart(const RowProducts& products) const override {
    return products.has_splits() && products.tiles(tile_rows(products), kHopperOutputs) < kEnoughTiles;
  }

  void run(RowProducts products, DType out, cudaStream_t stream) const override {
    with_type(out, [&]<typename Out>() {
      const auto with = [&]<int P, bool totals>() { launch_tiles<P, totals, Out>(products, stream); };
      switch (tile_rows(products)) {
        case 8:
          return with.template operator()<1, true>();
        case 16:
          return with.template operator()<2, true>();
        case 32:
          return with.template operator()<4, true>();
        case 64:
          return with.template operator()<8, true>();
        case 128:
          return products.has_splits() && !apart(products) ? with.template operator()<16, true>()
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
  void launch_tiles(RowProducts& products, cudaStream_t stream) const {
    using Tile = HopperTile<P>;
    const unsigned blocks = products.number_blocks(Tile::kRows, kHopperOutputs);
    WeightMaps weights{};
    for (int i = 0; i < products.count; ++i) {
      const RowProductNumbers& n = products.of[i];
      weights.of[i] = map_of(n.weight, n.outputs, products.inputs, products.inputs, kHopperOutputs);
    }
    launch("row_product, sm_90a", hopper_product_kernel<P, totals, Out>,
           LaunchShape{blocks, kHopperThreads, Tile::kSharedBytes}, stream,
           map_of(products.x, products.rows, products.inputs, products.x_row, Tile::kRows), weights, products);
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
