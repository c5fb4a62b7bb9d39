#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

// One block a token.
template <typename T>
__global__ void embed_kernel(const std::int32_t* tokens, const T* table, float* out, int width) {
  const std::int64_t t = blockIdx.x;
  const T* row = table + static_cast<std::int64_t>(tokens[t]) * width;
  for (int i = threadIdx.x; i < width; i += kBlock) out[t * width + i] = load(row + i);
}

// One block a token; the block of a token's first occurrence adds all occurrences, in their order.
__global__ void embed_backward_kernel(const std::int32_t* tokens, int count, const float* d_out, float* d_table,
                                      int width) {
  __shared__ bool matches[kBlock];
  const int first = blockIdx.x;
  const std::int32_t token = tokens[first];
  int seen_before = 0;
  for (int t = threadIdx.x; t < first; t += kBlock) seen_before |= tokens[t] == token;
  if (__syncthreads_or(seen_before) != 0) return;
  for (int tile = first; tile < count; tile += kBlock) {
    const int t = tile + static_cast<int>(threadIdx.x);
    const bool match = t < count && tokens[t] == token;
    if (__syncthreads_or(match) == 0) continue;
    matches[threadIdx.x] = match;
    __syncthreads();
    for (int j = 0; j < kBlock; ++j) {
      if (!matches[j]) continue;
      for (int i = threadIdx.x; i < width; i += kBlock) {
        d_table[static_cast<std::int64_t>(token) * width + i] += d_out[static_cast<std::int64_t>(tile + j) * width + i];
      }
    }
  }
}

}  // namespace

void CudaBackend::embed(const std::int32_t* tokens, const Weight& weight, const Matrix& out) {
  require_dense("embed", {out});
  const Matrix table = weight.values();
  if (out.rows == 0) return;
  with_type(table.dtype, [&]<typename T>() {
    launch("embed", embed_kernel<T>, static_cast<unsigned>(out.rows), kBlock, stream_, tokens,
           static_cast<const T*>(table.data), out.f32(), static_cast<int>(out.cols));
  });
}

void CudaBackend::embed_backward(const std::int32_t* tokens, const Matrix& d_out, const Matrix& d_table) {
  require_dense("embed_backward", {d_out, d_table});
  if (d_out.rows == 0) return;
  launch("embed_backward", embed_backward_kernel, static_cast<unsigned>(d_out.rows), kBlock, stream_, tokens,
         static_cast<int>(d_out.rows), d_out.f32(), d_table.f32(), static_cast<int>(d_out.cols));
}

}  // namespace tempora
