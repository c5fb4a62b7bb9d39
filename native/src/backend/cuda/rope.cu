#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

// One thread a pair of dimensions: i and i + C/2 of a head turn by position · frequency[i].
template <typename T>
__global__ void rope_kernel(T* x, std::int64_t pairs, int width, int head_dim, const std::int32_t* positions,
                            const float* frequencies, float direction) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (pair >= pairs) return;
  const int half = head_dim / 2;
  const std::int64_t token = pair / (width / 2);
  const int in_row = static_cast<int>(pair % (width / 2));
  const int head = in_row / half, i = in_row % half;
  // The angle is rounded to f32 before its sine and cosine, as transformers computes them.
  const float angle = static_cast<float>(positions[token]) * frequencies[i];
  float sine, cosine;
  sincosf(angle, &sine, &cosine);
  sine *= direction;
  T* low = x + token * width + head * head_dim + i;
  T* high = low + half;
  const float a = load(low), b = load(high);
  store(low, a * cosine - b * sine);
  store(high, b * cosine + a * sine);
}

}  // namespace

void CudaBackend::rope(const Matrix& x, int head_dim, const std::int32_t* positions, const float* frequencies,
                       bool inverse) {
  require_dense("rope", {x});
  const std::int64_t pairs = x.size() / 2;
  if (pairs == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    launch("rope", rope_kernel<T>, blocks_for(pairs, kBlock), kBlock, stream_, static_cast<T*>(x.data), pairs,
           static_cast<int>(x.cols), head_dim, positions, frequencies, inverse ? -1.0f : 1.0f);
  });
}

}  // namespace tempora
