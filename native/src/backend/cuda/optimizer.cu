#include <numeric>

#include "adamw.cuh"
#include "adamw_blocks8.cuh"
#include "check.h"
#include "cuda_backend.h"

namespace tempora {
namespace {

using namespace device;

// Elements of a tensor that one block of threads sums up.
constexpr std::int64_t kSquaresChunk = std::int64_t{1} << 16;

template <typename T>
struct SquaresTensor {
  const T* data;
  std::int64_t size;
  std::int64_t first_chunk;  // chunks of the tensors before it
};

// partial[chunk] = Σ x² of a chunk, thread by thread and then over the block: the order depends on the size alone.
template <typename T>
__global__ void sum_of_squares_kernel(const SquaresTensor<T>* tensors, int count, double* partial) {
  const SquaresTensor<T>& tensor = tensor_of(tensors, count, blockIdx.x);
  const std::int64_t begin = (blockIdx.x - tensor.first_chunk) * kSquaresChunk;
  const std::int64_t end = begin + kSquaresChunk < tensor.size ? begin + kSquaresChunk : tensor.size;
  const T* data = in_global(tensor.data);
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kBlock) {
    const double value = load(data + i);
    sum += value * value;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// sums[tensor] of its chunks' partial sums, one block a tensor: it does not depend on what else is summed up.
template <typename T>
__global__ void add_partial_sums_kernel(const SquaresTensor<T>* tensors, int count, std::int64_t chunks,
                                        const double* partial, double* sums) {
  const int tensor = blockIdx.x;
  const std::int64_t end = tensor + 1 < count ? tensors[tensor + 1].first_chunk : chunks;
  double sum = 0;
  for (std::int64_t i = tensors[tensor].first_chunk + threadIdx.x; i < end; i += kBlock) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[tensor] = sum;
}

// Four elements from number i on.
template <typename T, typename M>
__device__ inline void step_four(const StepTensor<T, M>& tensor, const AdamWScalars& s, std::int64_t i) {
  float m[4], v[4], weight[4], gradient[4];
  load_vector(tensor.first + i, m);
  load_vector(tensor.second + i, v);
  load_vector(tensor.weight + i, weight);
  load_vector(tensor.gradient + i, gradient);
#pragma unroll
  for (int k = 0; k < 4; ++k) weight[k] = updated(weight[k], gradient[k], m[k], v[k], s);
  store_four(tensor.first + i, m, combine_key(s.rounding_key, 1), i);
  store_four(tensor.second + i, v, combine_key(s.rounding_key, 2), i);
  store_four(tensor.weight + i, weight, s.rounding_key, i);
}

template <typename T, typename M>
__device__ inline void step_one(const StepTensor<T, M>& tensor, const AdamWScalars& s, std::int64_t i) {
  float m = load(tensor.first + i), v = load(tensor.second + i);
  const float next = updated(load(tensor.weight + i), tensor.gradient[i], m, v, s);
  store_one(tensor.first + i, m, combine_key(s.rounding_key, 1), i);
  store_one(tensor.second + i, v, combine_key(s.rounding_key, 2), i);
  store_one(tensor.weight + i, next, s.rounding_key, i);
}

// Whether all that a tensor is made of can be read by four elements.
template <typename T, typename M>
__device__ inline bool by_four(const StepTensor<T, M>& tensor) {
  const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  return (address(tensor.weight) % (4 * sizeof(T)) | address(tensor.gradient) % 16 |
          address(tensor.first) % (4 * sizeof(M)) | address(tensor.second) % (4 * sizeof(M))) == 0;
}

// Moments in f32, or in bf16 with rounding by keys of their own.
template <typename T, typename M>
__global__ void __launch_bounds__(kBlock) adamw_kernel(const StepTensor<T, M>* tensors, int count) {
  const StepTensor<T, M> tensor = tensor_of(tensors, count, blockIdx.x).in_global();
  const AdamWScalars s = tensor.scalars;
  std::int64_t begin = (blockIdx.x - tensor.first_chunk) * kStepChunk;
  const std::int64_t end = begin + kStepChunk < tensor.size ? begin + kStepChunk : tensor.size;
  if (by_four(tensor)) {
    const std::int64_t whole = begin + (end - begin) / 4 * 4;
    for (std::int64_t i = begin + 4 * threadIdx.x; i < whole; i += 4 * kBlock) step_four(tensor, s, i);
    begin = whole;
  }
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kBlock) step_one(tensor, s, i);
}

// Appends a tensor to those of a launch, and returns the chunks that there are with it.
template <typename Tensor>
std::int64_t append(std::vector<Tensor>& tensors, Tensor tensor, std::int64_t chunks, std::int64_t chunk_size) {
  if (tensor.size == 0) return chunks;
  tensor.first_chunk = chunks;
  tensors.push_back(tensor);
  return chunks + (tensor.size + chunk_size - 1) / chunk_size;
}

}  // namespace

double CudaBackend::sum_of_squares(const std::vector<Matrix>& tensors) {
  double total = 0;
  if (tensors.empty()) return total;
  for (const Matrix& tensor : tensors) {
    require_dense("sum_of_squares", {tensor});
    if (tensor.dtype != tensors.front().dtype) throw std::logic_error("sum_of_squares: the tensors are of one dtype");
  }
  with_type(tensors.front().dtype, [&]<typename T>() {
    std::vector<SquaresTensor<T>> all;
    std::int64_t chunks = 0;
    for (const Matrix& x : tensors) {
      chunks = append(all, {static_cast<const T*>(x.data), x.size(), 0}, chunks, kSquaresChunk);
    }
    if (chunks == 0) return;
    const Buffer table = upload(all);
    const Buffer partial =
        allocate((all.size() + static_cast<std::size_t>(chunks)) * sizeof(double), MemoryUse::workspace);
    const auto* on_device = static_cast<const SquaresTensor<T>*>(table.data());
    const auto count = static_cast<int>(all.size());
    auto *sums = static_cast<double*>(partial.data()), *of_chunks = sums + all.size();
    launch("sum_of_squares", sum_of_squares_kernel<T>, static_cast<unsigned>(chunks), kBlock, stream_, on_device, count,
           of_chunks);
    launch("sum_of_squares, chunks", add_partial_sums_kernel<T>, static_cast<unsigned>(count), kBlock, stream_,
           on_device, count, chunks, of_chunks, sums);
    std::vector<double> host(all.size());
    copy_out(host.data(), sums, host.size() * sizeof(double));
    total = std::accumulate(host.begin(), host.end(), 0.0);
  });
  return total;
}

const DynamicMap* CudaBackend::dynamic_maps() {
  if (!dynamic_maps_) {
    dynamic_maps_ = CudaBackend::allocate(2 * sizeof(DynamicMap), MemoryUse::optimizer);
    copy_in(dynamic_maps_.data(), &signed_dynamic_map(), sizeof(DynamicMap));
    copy_in(static_cast<DynamicMap*>(dynamic_maps_.data()) + 1, &unsigned_dynamic_map(), sizeof(DynamicMap));
  }
  return static_cast<const DynamicMap*>(dynamic_maps_.data());
}

// The tensors of one kind: weights of T, moments of M in the format.
template <typename T, typename M>
void CudaBackend::step_tensors(const std::vector<AdamWTensor>& tensors, MomentsFormat format,
                               const AdamWOptions& options) {
  std::vector<StepTensor<T, M>> all;
  std::int64_t chunks = 0;
  for (const AdamWTensor& tensor : tensors) {
    Moments& moments = *tensor.moments;
    if (moments.format != format || (tensor.weight.dtype == DType::f32) != (sizeof(T) == sizeof(float))) continue;
    M* first = static_cast<M*>(moments.data.data());
    chunks = append(all,
                    {static_cast<T*>(tensor.weight.data), tensor.gradient.f32(), first, first + moments.size,
                     static_cast<float*>(moments.scales.data()), tempora::moments_blocks(moments), tensor.weight.size(),
                     0, adamw_scalars(tensor, options)},
                    chunks, kStepChunk);
  }
  if (chunks == 0) return;
  const Buffer table = upload(all);
  const auto* on_device = static_cast<const StepTensor<T, M>*>(table.data());
  const auto grid = static_cast<unsigned>(chunks);
  const auto count = static_cast<int>(all.size());
  if constexpr (sizeof(M) == 1) {
    launch("adamw, 8 bit", adamw_blocks8_kernel<T>, grid, kBlock, stream_, on_device, count, dynamic_maps());
  } else {
    launch("adamw", adamw_kernel<T, M>, grid, kBlock, stream_, on_device, count);
  }
}

void CudaBackend::adamw(const std::vector<AdamWTensor>& tensors, const AdamWOptions& options) {
  check_adamw(tensors);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    with_type(dtype, [&]<typename T>() {
      step_tensors<T, float>(tensors, MomentsFormat::f32, options);
      step_tensors<T, bf16>(tensors, MomentsFormat::bf16, options);
      step_tensors<T, std::uint8_t>(tensors, MomentsFormat::blocks8, options);
    });
  }
}

}  // namespace tempora
