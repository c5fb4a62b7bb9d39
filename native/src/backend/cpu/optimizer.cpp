#include <vector>

#include "cpu_backend.h"
#include "kernels/adamw.h"
#include "kernels/elements.h"
#include "parallel.h"
#include "views.h"

namespace tempora {

double CpuBackend::sum_of_squares(const Matrix& x) {
  constexpr std::int64_t kBlock = 1 << 15;
  const auto kernel = element_kernels_for(isa_).sum_of_squares[index_of(x.dtype)];
  const std::int64_t size = x.size();
  std::vector<double> sums(static_cast<std::size_t>((size + kBlock - 1) / kBlock));
  parallel_ranges(threads_, static_cast<std::int64_t>(sums.size()), 2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * kBlock;
      sums[static_cast<std::size_t>(block)] = kernel(element(x, first), std::min(kBlock, size - first));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

Moments CpuBackend::make_moments(MomentsFormat format, std::int64_t size) {
  Moments moments{format, size, allocate(static_cast<std::size_t>(size) * 2 * sizeof(float), MemoryUse::optimizer), {}};
  zero(moments.data.data(), moments.data.bytes());
  return moments;
}

void CpuBackend::get_moments(const Moments& moments, float* first, float* second) {
  const std::size_t bytes = static_cast<std::size_t>(moments.size) * sizeof(float);
  copy_out(first, moments.data.data(), bytes);
  copy_out(second, static_cast<const float*>(moments.data.data()) + moments.size, bytes);
}

void CpuBackend::set_moments(Moments& moments, const float* first, const float* second) {
  const std::size_t bytes = static_cast<std::size_t>(moments.size) * sizeof(float);
  copy_in(moments.data.data(), first, bytes);
  copy_in(static_cast<float*>(moments.data.data()) + moments.size, second, bytes);
}

void CpuBackend::adamw(const Matrix& weight, const Matrix& gradient, Moments& moments, const AdamWOptions& options) {
  require(gradient.dtype == DType::f32 && gradient.size() == weight.size() && moments.size == weight.size(),
          "adamw: the gradient is f32, and all are as large as the weight");
  float* first = static_cast<float*>(moments.data.data());
  float* second = first + moments.size;
  const AdamWScalars scalars = adamw_scalars(options);
  const AdamWKernels& kernels = adamw_kernels_for(isa_);
  parallel_ranges(threads_, weight.size(), kParallelGrain, 64, [&](std::int64_t begin, std::int64_t end) {
    if (weight.dtype == DType::f32) {
      kernels.update_f32(weight.f32(), gradient.f32(), first, second, scalars, begin, end);
    } else {
      kernels.update_bf16(static_cast<std::uint16_t*>(weight.data), gradient.f32(), first, second, scalars, begin, end);
    }
  });
}

}  // namespace tempora
