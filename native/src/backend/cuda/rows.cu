#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

// One block a row.
template <typename T>
__global__ void gather_kernel(const T* x, const std::int32_t* rows, T* out, int width) {
  const std::int64_t r = blockIdx.x;
  const T* from = x + static_cast<std::int64_t>(rows[r]) * width;
  for (int i = threadIdx.x; i < width; i += kBlock) out[r * width + i] = from[i];
}

template <typename T>
__global__ void scatter_kernel(const T* out, const std::int32_t* rows, T* x, int width) {
  const std::int64_t r = blockIdx.x;
  T* to = x + static_cast<std::int64_t>(rows[r]) * width;
  for (int i = threadIdx.x; i < width; i += kBlock) to[i] = out[r * width + i];
}

__global__ void continue_tokens_kernel(const std::int32_t* sampled, const std::int32_t* from, std::int32_t* tokens,
                                       int count) {
  const int i = blockIdx.x * kBlock + threadIdx.x;
  if (i < count && from[i] >= 0) tokens[i] = max(0, sampled[from[i]]);
}

}  // namespace

void CudaBackend::gather_rows(const Matrix& x, const std::int32_t* rows, const Matrix& out) {
  require_dense("gather_rows", {x, out});
  if (out.size() == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    launch("gather", gather_kernel<T>, static_cast<unsigned>(out.rows), kBlock, stream_, static_cast<const T*>(x.data),
           rows, static_cast<T*>(out.data), static_cast<int>(out.cols));
  });
}

void CudaBackend::scatter_rows(const Matrix& out, const std::int32_t* rows, const Matrix& x) {
  require_dense("scatter_rows", {out, x});
  zero(x.data, x.bytes());
  if (out.size() == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    launch("scatter", scatter_kernel<T>, static_cast<unsigned>(out.rows), kBlock, stream_,
           static_cast<const T*>(out.data), rows, static_cast<T*>(x.data), static_cast<int>(x.cols));
  });
}

void CudaBackend::continue_tokens(const std::int32_t* sampled, const std::int32_t* from, std::int64_t count,
                                  std::int32_t* tokens) {
  if (count == 0) return;
  launch("continue_tokens", continue_tokens_kernel, blocks_for(count, kBlock), kBlock, stream_, sampled, from, tokens,
         static_cast<int>(count));
}

}  // namespace tempora
