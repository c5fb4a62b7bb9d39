#include "rope.cuh"

#include "check.h"
#include "cuda_backend.h"

namespace tempora {
namespace {

using namespace device;

// One block a token: its sines and cosines are computed once, for all of its heads. A thread has n dimensions of the
// lower half of a head, and those of the upper half that they turn with.
template <typename T, int n>
__global__ void rope_kernel(T* x, int width, int head_dim, const std::int32_t* positions, const float* frequencies,
                            float direction) {
  __shared__ Turns turns;
  const std::int64_t token = blockIdx.x;
  const int half = head_dim / 2, vectors = width / 2 / n;
  turns.fill(positions[token], frequencies, half, direction);
  __syncthreads();
  for (int vector = threadIdx.x; vector < vectors; vector += kBlock) {
    const int pair = vector * n, dimension = pair % half;
    T* low = x + token * width + pair / half * head_dim + dimension;
    float lows[n], highs[n], sines[n], cosines[n];
    load_vector(low, lows);
    load_vector(low + half, highs);
    load_vector(turns.sine + dimension, sines);
    load_vector(turns.cosine + dimension, cosines);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const float a = lows[i];
      lows[i] = turned_low(a, highs[i], sines[i], cosines[i]);
      highs[i] = turned_high(a, highs[i], sines[i], cosines[i]);
    }
    store_vector(low, lows);
    store_vector(low + half, highs);
  }
}

}  // namespace

void CudaBackend::rope(const Matrix& x, int head_dim, const std::int32_t* positions, const float* frequencies,
                       bool inverse) {
  require_dense("rope", {x});
  if (x.size() == 0) return;
  if (head_dim / 2 > kLargestHalf) {
    throw std::invalid_argument("rope: heads of " + std::to_string(head_dim) +
                                " dimensions; on CUDA they have at most " + std::to_string(2 * kLargestHalf));
  }
  with_type(x.dtype, [&]<typename T>() {
    T* to = static_cast<T*>(x.data);
    const auto turn = [&]<int n>() {
      launch("rope", rope_kernel<T, n>, static_cast<unsigned>(x.rows), kBlock, stream_, to, static_cast<int>(x.cols),
             head_dim, positions, frequencies, inverse ? -1.0f : 1.0f);
    };
    constexpr int n = kVector<T>;
    if (fits_vectors<n>(to, head_dim / 2)) return turn.template operator()<n>();
    turn.template operator()<1>();
  });
}

}  // namespace tempora
