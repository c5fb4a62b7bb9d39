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

namespace {

// Elements of a tensor that one thread works on.
struct Part {
  std::size_t tensor;
  std::int64_t begin, end;
};

// Parts of `most` elements, a tensor's last one smaller; `size` of a tensor.
template <typename Tensor, typename Size>
std::vector<Part> parts_of(const std::vector<Tensor>& tensors, std::int64_t most, const Size& size) {
  std::vector<Part> parts;
  for (std::size_t tensor = 0; tensor < tensors.size(); ++tensor) {
    const std::int64_t end = size(tensors[tensor]);
    for (std::int64_t begin = 0; begin < end; begin += most) {
      parts.push_back({tensor, begin, std::min(begin + most, end)});
    }
  }
  return parts;
}

}  // namespace

double CpuBackend::sum_of_squares(const std::vector<Matrix>& tensors) {
  for (const Matrix& tensor : tensors) require_dense("sum_of_squares", {tensor});
  const std::vector<Part> parts = parts_of(tensors, 1 << 15, [](const Matrix& tensor) { return tensor.size(); });
  std::vector<double> sums(parts.size());
  parallel_ranges(threads_, static_cast<std::int64_t>(parts.size()), 2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      const Matrix& x = tensors[parts[i].tensor];
      const auto kernel = element_kernels_for(isa_).sum_of_squares[index_of(x.dtype)];
      sums[i] = kernel(element(x, parts[i].begin), parts[i].end - parts[i].begin);
    }
  });
  // A tensor's own sum first: it does not depend on what else is summed up.
  std::vector<double> totals(tensors.size());
  for (std::size_t i = 0; i < parts.size(); ++i) totals[parts[i].tensor] += sums[i];
  double total = 0;
  for (const double sum : totals) total += sum;
  return total;
}

namespace {

// AdamW of one tensor, a range of elements at a time.
struct TensorStep {
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

  void take(std::int64_t begin, std::int64_t end, const ElementKernels& elements) const {
    switch (moments.format) {
      case MomentsFormat::f32:
        return in_f32(begin, end);
      case MomentsFormat::bf16:
        return in_bf16(begin, end, elements);
      case MomentsFormat::blocks8:
        return in_blocks8(begin, end);
    }
  }
};

// Whole blocks of moments.
constexpr std::int64_t kStepElements = 64 * kMomentsBlock;

}  // namespace

void CpuBackend::adamw(const std::vector<AdamWTensor>& tensors, const AdamWOptions& options) {
  check_adamw(tensors);
  std::vector<TensorStep> steps;
  for (const AdamWTensor& tensor : tensors) {
    steps.push_back({adamw_kernels_for(isa_), moments_kernels_for(isa_), tensor.weight, tensor.gradient.f32(),
                     *tensor.moments, adamw_scalars(tensor, options)});
  }
  const ElementKernels& elements = element_kernels_for(isa_);
  const std::vector<Part> parts =
      parts_of(tensors, kStepElements, [](const AdamWTensor& tensor) { return tensor.weight.size(); });
  parallel_ranges(threads_, static_cast<std::int64_t>(parts.size()), 2, 1, [&](std::int64_t first, std::int64_t last) {
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) {
      steps[parts[i].tensor].take(parts[i].begin, parts[i].end, elements);
    }
  });
}

}  // namespace tempora
