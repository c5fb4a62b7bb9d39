#include <cmath>

#include "cpu_backend.h"
#include "kernels/norm.h"
#include "parallel.h"
#include "views.h"

namespace tempora {

const float* CpuBackend::rotary_table(const float* frequencies, int half, std::int64_t largest) {
  const auto count = static_cast<std::size_t>(half);
  const bool same =
      rotary_.frequencies.size() == count && std::equal(frequencies, frequencies + half, rotary_.frequencies.begin());
  if (!same || largest >= rotary_.positions) {
    const std::int64_t wanted = std::max<std::int64_t>(largest + 1, 256);
    const std::int64_t positions = same ? std::max(wanted, 2 * rotary_.positions) : wanted;
    rotary_ = {};
    Buffer values = workspace(static_cast<std::size_t>(positions * half) * 2 * sizeof(float));
    float* table = static_cast<float*>(values.data());
    parallel_ranges(threads_, positions, 64, 1, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        for (int i = 0; i < half; ++i) {
          // The angle is rounded to f32 as in the models' own code.
          const float angle = static_cast<float>(p) * frequencies[i];
          table[p * 2 * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
          table[p * 2 * half + half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
        }
      }
    });
    rotary_ = {std::vector<float>(frequencies, frequencies + half), positions, std::move(values)};
  }
  return static_cast<const float*>(rotary_.values.data());
}

void CpuBackend::rope(const Matrix& x, int head_dim, const std::int32_t* positions, const float* frequencies,
                      bool inverse) {
  require_dense("rope", {x});
  require(head_dim % 2 == 0 && x.cols % head_dim == 0, "rope: whole heads of an even size");
  if (x.size() == 0) return;
  const auto kernel = norm_kernels_for(isa_).rope[index_of(x.dtype)];
  const float* table = rotary_table(frequencies, head_dim / 2, *std::max_element(positions, positions + x.rows));
  parallel_ranges(threads_, x.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    kernel(element(x, begin * x.cols), positions + begin, table, inverse ? -1.0f : 1.0f, end - begin,
           static_cast<int>(x.cols / head_dim), head_dim);
  });
}

}  // namespace tempora
