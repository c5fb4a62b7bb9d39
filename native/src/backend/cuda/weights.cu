// Weights, and the products for batches of many rows: those of cuBLASLt. A quantised weight is dequantised for each.
#include "../dynamic_map.h"
#include "../gguf_blocks.h"
#include "../nf4.h"
#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"
#include "vectors.cuh"

namespace tempora {
namespace {

using namespace device;

struct Nf4View {
  const std::uint8_t* codes;
  const std::uint8_t* maxima;
  const float* scales;
  const float* offset;
  const DynamicMap* map;
};

constexpr int kEight = 8;  // numbers of a thread: one store of 16 bytes in bf16

// One thread eight numbers, which are of one block. The values lie in shared memory, where each of the lanes' codes has
// a bank of its own.
template <typename T>
__global__ void __launch_bounds__(kBlock) dequantise_kernel(Nf4View view, std::int64_t size, T* to) {
  constexpr float kValues[16] = {-1.0f,          -0.6961928010f, -0.5250730515f, -0.3949174881f,
                                 -0.2844413817f, -0.1847734302f, -0.0910500363f, 0.0f,
                                 0.0795802996f,  0.1609302014f,  0.2461123019f,  0.3379152417f,
                                 0.4407098293f,  0.5626170039f,  0.7229568362f,  1.0f};
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = kValues[threadIdx.x];
  __syncthreads();
  const std::int64_t i = kEight * (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x);
  if (i >= size) return;
  const std::int64_t block = i / kNf4Block;
  const float largest = view.map->values[view.maxima[block]] * view.scales[block / kNf4MaximaBlock] + *view.offset;
  float numbers[kEight];
  if (i + kEight <= size) {
    const std::uint32_t codes = *reinterpret_cast<const std::uint32_t*>(view.codes + i / 2);
#pragma unroll
    for (int k = 0; k < kEight; ++k) {
      // The first of a byte's two numbers is in its high half.
      numbers[k] = values[codes >> (k / 2 * 8 + (k % 2 == 0 ? 4 : 0)) & 15u] * largest;
    }
    return store_vector(to + i, numbers);
  }
  for (std::int64_t at = i; at < size; ++at) {
    const std::uint8_t pair = view.codes[at / 2];
    store(to + at, values[at % 2 == 0 ? pair >> 4 : pair & 15] * largest);
  }
}

// One thread a group of 32 numbers.
template <WeightFormat format, typename T>
__global__ void dequantise_gguf_kernel(const std::uint8_t* blocks, std::int64_t groups, T* to) {
  const std::int64_t group = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (group >= groups) return;
  float numbers[kGgufGroup];
  decode_gguf_group<format>(blocks, group, numbers);
  store_vector(to + group * kGgufGroup, numbers);
}

}  // namespace

std::unique_ptr<Weight> CudaBackend::make_weight(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  return std::make_unique<Weight>(format, rows, cols, allocate(weight_bytes(format, rows * cols), MemoryUse::weights));
}

// The numbers of a weight as `dtype`; `owner` holds what had to be dequantised.
Matrix CudaBackend::weight_numbers(const Weight& weight, DType dtype, Buffer& owner) {
  if (is_plain(weight.format)) return weight.values();
  owner = allocate(static_cast<std::size_t>(weight.size()) * size_of(dtype), MemoryUse::workspace);
  const auto* storage = static_cast<const std::uint8_t*>(weight.storage.data());
  if (is_gguf(weight.format)) {
    const std::int64_t groups = weight.size() / kGgufGroup;
    with_type(dtype, [&]<typename T>() {
      with_gguf_format(weight.format, [&]<WeightFormat format>() {
        launch("dequantise", dequantise_gguf_kernel<format, T>, blocks_for(groups, kBlock), kBlock, stream_, storage,
               groups, static_cast<T*>(owner.data()));
      });
    });
    return {owner.data(), dtype, weight.rows, weight.cols};
  }
  const Nf4Layout layout(weight.size());
  const Nf4View view{storage, storage + layout.maxima, reinterpret_cast<const float*>(storage + layout.scales),
                     reinterpret_cast<const float*>(storage + layout.offset), dynamic_maps()};
  with_type(dtype, [&]<typename T>() {
    launch("dequantise", dequantise_kernel<T>, blocks_for(weight.size(), kEight * kBlock), kBlock, stream_, view,
           weight.size(), static_cast<T*>(owner.data()));
  });
  return {owner.data(), dtype, weight.rows, weight.cols};
}

void CudaBackend::product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  Buffer owner;
  matmul(x, weight_numbers(weight, x.dtype, owner), out, {.transpose_b = true, .accumulate = accumulate});
}

// The residual is read where the product is written: nothing is copied first.
void CudaBackend::residual_product(const Matrix& x, const WeightProduct& one, const Matrix& residual) {
  require_dense("residual_product", {residual, one.out});
  Buffer owner;
  multiply(x, weight_numbers(one.weight, x.dtype, owner), residual, one.out, {.transpose_b = true, .accumulate = true});
  if (one.narrow.weight != nullptr) row_product(one.narrow.narrow, *one.narrow.weight, one.out, true);
}

void CudaBackend::transposed_product(const Matrix& d_out, const Weight& weight, const Matrix& d_x, bool accumulate) {
  Buffer owner;
  matmul(d_out, weight_numbers(weight, d_out.dtype, owner), d_x, {.accumulate = accumulate});
}

void CudaBackend::gradient_product(const Matrix& d_out, const Matrix& x, const Matrix& d_weight, bool accumulate) {
  matmul(d_out, x, d_weight, {.transpose_a = true, .accumulate = accumulate});
}

}  // namespace tempora
