#include <algorithm>
#include <vector>

#include "../../forest/random.h"
#include "../dynamic_map.h"
#include "cpu_backend.h"
#include "kernels/adamw.h"
#include "kernels/elements.h"
#include "kernels/moments.h"
#include "parallel.h"
#include "views.h"

namespace tempora {

double CpuBackend::sum_of_squares(const Matrix& x) {
  require_dense("sum_of_squares", {x});
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

namespace {

// One call of AdamW, a range of elements at a time.
struct AdamWCall {
  const AdamWKernels& kernels;
  const MomentsKernels& narrow;
  const Matrix& weight;
  const float* gradient;
  const Moments& moments;
  AdamWScalars scalars;

  // first and second: those of the element `begin` and on.
  void update(float* first, float* second, std::int64_t begin, std::int64_t end) const {
    if (weight.dtype == DType::f32) {
      kernels.update_f32(weight.f32(), gradient, first, second, scalars, begin, end);
    } else {
      kernels.update_bf16(static_cast<std::uint16_t*>(weight.data), gradient, first, second, scalars, begin, end);
    }
  }

  void in_f32(std::int64_t begin, std::int64_t end) const {
    float* first = static_cast<float*>(moments.data.data());
    update(first + begin, first + moments.size + begin, begin, end);
  }

  // begin is a multiple of kMomentsBlock, as in the next.
  void in_bf16(std::int64_t begin, std::int64_t end, const ElementKernels& elements) const {
    std::uint16_t* first = static_cast<std::uint16_t*>(moments.data.data());
    std::uint16_t* second = first + moments.size;
    float m[kMomentsBlock], v[kMomentsBlock];
    for (; begin < end; begin += kMomentsBlock) {
      const std::int64_t count = std::min<std::int64_t>(kMomentsBlock, end - begin);
      elements.widen(first + begin, m, count);
      elements.widen(second + begin, v, count);
      update(m, v, begin, begin + count);
      narrow.narrow_bf16(m, combine_key(scalars.rounding_key, 1), begin, first + begin, count);
      narrow.narrow_bf16(v, combine_key(scalars.rounding_key, 2), begin, second + begin, count);
    }
  }

  void in_blocks8(std::int64_t begin, std::int64_t end) const {
    std::uint8_t* first = static_cast<std::uint8_t*>(moments.data.data());
    std::uint8_t* second = first + moments.size;
    float* scales = static_cast<float*>(moments.scales.data());
    const std::int64_t blocks = moments_blocks(moments);
    const DynamicMap &with_sign = signed_dynamic_map(), &without = unsigned_dynamic_map();
    float m[kMomentsBlock], v[kMomentsBlock];
    for (; begin < end; begin += kMomentsBlock) {
      const std::int64_t count = std::min<std::int64_t>(kMomentsBlock, end - begin);
      float* scale = scales + begin / static_cast<std::int64_t>(kMomentsBlock);
      narrow.widen_block(first + begin, with_sign, scale[0], m, count);
      narrow.widen_block(second + begin, without, scale[blocks], v, count);
      update(m, v, begin, begin + count);
      scale[0] = narrow.narrow_block(m, with_sign, first + begin, count);
      scale[blocks] = narrow.narrow_block(v, without, second + begin, count);
    }
  }
};

}  // namespace

void CpuBackend::adamw(const Matrix& weight, const Matrix& gradient, Moments& moments, const AdamWOptions& options) {
  require(gradient.dtype == DType::f32 && gradient.size() == weight.size() && moments.size == weight.size(),
          "adamw: the gradient is f32, and all are as large as the weight");
  const AdamWCall call{adamw_kernels_for(isa_), moments_kernels_for(isa_), weight, gradient.f32(), moments,
                       adamw_scalars(options)};
  const ElementKernels& elements = element_kernels_for(isa_);
  parallel_ranges(threads_, weight.size(), kParallelGrain, kMomentsBlock, [&](std::int64_t begin, std::int64_t end) {
    switch (moments.format) {
      case MomentsFormat::f32:
        return call.in_f32(begin, end);
      case MomentsFormat::bf16:
        return call.in_bf16(begin, end, elements);
      case MomentsFormat::blocks8:
        return call.in_blocks8(begin, end);
    }
  });
}

}  // namespace tempora
