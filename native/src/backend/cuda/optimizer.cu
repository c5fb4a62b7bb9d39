#include <numeric>

#include "../../forest/random.h"
#include "../adamw.h"
#include "../dynamic_map.h"
#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"
#include "vectors.cuh"

namespace tempora {
namespace {

using namespace device;

// Elements of a tensor that one block of threads works on. Every chunk is of one tensor.
constexpr std::int64_t kSquaresChunk = std::int64_t{1} << 16;
constexpr std::int64_t kStepChunk = 16 * kBlock;

template <typename T>
struct SquaresTensor {
  const T* data;
  std::int64_t size;
  std::int64_t first_chunk;  // chunks of the tensors before it
};

// Of `tensors`, none of them empty, the one that a chunk belongs to.
template <typename Tensor>
__device__ const Tensor& tensor_of(const Tensor* tensors, int count, std::int64_t chunk) {
  int first = 0;
  for (int end = count; end - first > 1;) {
    const int middle = (first + end) / 2;
    if (tensors[middle].first_chunk <= chunk) {
      first = middle;
    } else {
      end = middle;
    }
  }
  return tensors[first];
}

// partial[chunk] = Σ x² of a chunk, thread by thread and then over the block: the order depends on the size alone.
template <typename T>
__global__ void sum_of_squares_kernel(const SquaresTensor<T>* tensors, int count, double* partial) {
  const SquaresTensor<T>& tensor = tensor_of(tensors, count, blockIdx.x);
  const std::int64_t begin = (blockIdx.x - tensor.first_chunk) * kSquaresChunk;
  const std::int64_t end = begin + kSquaresChunk < tensor.size ? begin + kSquaresChunk : tensor.size;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kBlock) {
    const double value = load(tensor.data + i);
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

// Rounds to bf16 up or down with the probability that makes the expectation the value itself. The CPU's kernel draws
// the same 16 bits for an element: four elements share a word.
__device__ inline bf16 round_stochastically(float value, std::uint64_t word, int element) {
  const std::uint32_t noise = static_cast<std::uint32_t>(word >> (16 * element)) & 0xffffu;
  const std::uint32_t bits = __float_as_uint(value);
  // Infinity and NaN stay what they are.
  const std::uint32_t rounded = (bits & 0x7f800000u) == 0x7f800000u ? bits : bits + noise;
  return __ushort_as_bfloat16(static_cast<unsigned short>(rounded >> 16));
}

// Elements [element, element + 4) from p on.
__device__ inline void store_four(float* p, const float (&x)[4], std::uint64_t, std::int64_t) { store_vector(p, x); }
__device__ inline void store_four(bf16* p, const float (&x)[4], std::uint64_t key, std::int64_t element) {
  const std::uint64_t word = combine_key(key, static_cast<std::uint64_t>(element / 4));
  Vector<bf16, 4> rounded;
#pragma unroll
  for (int i = 0; i < 4; ++i) rounded.at[i] = round_stochastically(x[i], word, i);
  *reinterpret_cast<Vector<bf16, 4>*>(p) = rounded;
}

__device__ inline void store_one(float* p, float value, std::uint64_t, std::int64_t) { *p = value; }
__device__ inline void store_one(bf16* p, float value, std::uint64_t key, std::int64_t element) {
  *p = round_stochastically(value, combine_key(key, static_cast<std::uint64_t>(element / 4)),
                            static_cast<int>(element % 4));
}

// m and v of one element, brought up to date; returns the weight. adamw.h has the formula.
__device__ float updated(float weight, float gradient, float& m, float& v, const AdamWScalars& s) {
  const float g = gradient * s.gradient_scale;
  m = m + (g - m) * s.one_minus_beta1;
  v = v * s.beta2 + g * g * s.one_minus_beta2;
  const float denominator = sqrtf(v) / s.second_root_correction + s.epsilon;
  return weight * s.keep - s.step_size * (m / denominator);
}

template <typename T, typename M>
struct StepTensor {
  T* weight;
  const float* gradient;
  M* first;
  M* second;
  float* scales;  // of moments in 8 bits: those of first, then those of second
  std::int64_t moments_blocks;
  std::int64_t size;
  std::int64_t first_chunk;  // chunks of the tensors before it
  AdamWScalars scalars;
};

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
  const StepTensor<T, M> tensor = tensor_of(tensors, count, blockIdx.x);
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

// The nearest value's code; of two as near the lower one, as DynamicMap::code_of.
__device__ std::uint8_t code_of(const DynamicMap* map, float x) {
  int code = 0;
  for (int step = 128; step > 0; step /= 2) {
    if (x > map->midpoints[code + step - 1]) code += step;
  }
  return static_cast<std::uint8_t>(code);
}

// The threads of a block take one block of moments after the other.
template <typename T>
__global__ void adamw_blocks8_kernel(const StepTensor<T, std::uint8_t>* tensors, int count, const DynamicMap* maps) {
  static_assert(kMomentsBlock == kBlock);
  const StepTensor<T, std::uint8_t>& tensor = tensor_of(tensors, count, blockIdx.x);
  const AdamWScalars s = tensor.scalars;
  const std::int64_t begin = (blockIdx.x - tensor.first_chunk) * kStepChunk;
  const std::int64_t end = begin + kStepChunk < tensor.size ? begin + kStepChunk : tensor.size;
  for (std::int64_t block = begin / kBlock; block * kBlock < end; ++block) {
    const std::int64_t i = block * kBlock + threadIdx.x;
    float *first_scale = tensor.scales + block, *second_scale = first_scale + tensor.moments_blocks;
    float m = 0, v = 0;
    if (i < end) {
      m = maps[0].values[tensor.first[i]] * *first_scale;
      v = maps[1].values[tensor.second[i]] * *second_scale;
      const float next = updated(load(tensor.weight + i), tensor.gradient[i], m, v, s);
      store_one(tensor.weight + i, next, s.rounding_key, i);
    }
    const float largest_m = block_max(fabsf(m)), largest_v = block_max(v);
    if (i < end) {
      tensor.first[i] = code_of(maps, largest_m == 0 ? 0.0f : m / largest_m);
      tensor.second[i] = code_of(maps + 1, largest_v == 0 ? 0.0f : v / largest_v);
    }
    if (threadIdx.x == 0) {
      *first_scale = largest_m;
      *second_scale = largest_v;
    }
  }
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
