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
__global__ void scatter_kernel(const T* part, const std::int32_t* rows, T* whole, int width) {
  const std::int64_t r = blockIdx.x;
  T* to = whole + static_cast<std::int64_t>(rows[r]) * width;
  for (int i = threadIdx.x; i < width; i += kBlock) to[i] = part[r * width + i];
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

void CudaBackend::scatter_rows(const Matrix& part, const std::int32_t* rows, const Matrix& whole) {
  require_dense("scatter_rows", {part, whole});
  zero(whole.data, whole.bytes());
  if (part.size() == 0) return;
  with_type(whole.dtype, [&]<typename T>() {
    launch("scatter", scatter_kernel<T>, static_cast<unsigned>(part.rows), kBlock, stream_,
           static_cast<const T*>(part.data), rows, static_cast<T*>(whole.data), static_cast<int>(whole.cols));
  });
}

void CudaBackend::continue_tokens(const std::int32_t* sampled, const std::int32_t* from, std::int64_t count,
                                  std::int32_t* tokens) {
  if (count == 0) return;
  launch("continue_tokens", continue_tokens_kernel, blocks_for(count, kBlock), kBlock, stream_, sampled, from, tokens,
         static_cast<int>(count));
}

}  // namespace tempora
