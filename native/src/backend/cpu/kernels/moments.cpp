#include "moments.h"

#include "noise.h"

namespace tempora::TEMPORA_ISA {
namespace {

void widen_block(const std::uint8_t* codes, const DynamicMap& map, float scale, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = map.values[codes[i]] * scale;
}

// As DynamicMap::code_of, which is not called: see kernels.h.
inline std::uint8_t code_of(const DynamicMap& map, float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const std::uint8_t code = map.first_code[bits >> 16];
  return static_cast<std::uint8_t>(code + (x > map.midpoints[code] ? 1 : 0));
}

float narrow_block(const float* values, const DynamicMap& map, std::uint8_t* codes, std::int64_t n) {
  VecF top = splat(0);
  for_vectors(n, [&](auto load, auto) {
    top = max(reinterpret_cast<VecF>(reinterpret_cast<VecU>(load(values)) & 0x7FFFFFFFu), top);
  });
  const float largest = max_lane(top);
  float scaled[kMomentsBlock];
  if (largest == 0) {
    __builtin_memset(scaled, 0, sizeof scaled);
  } else {
    float* to = scaled;
    for_vectors(n, [=](auto load, auto store) { store(to, load(values) / largest); });
  }
  for (std::int64_t i = 0; i < n; ++i) codes[i] = code_of(map, scaled[i]);
  return largest;
}

void narrow_bf16(const float* values, std::uint64_t key, std::int64_t element, std::uint16_t* to, std::int64_t n) {
  for_vectors(n, [=, &element](auto load, auto store) {
    const VecF exact = load(values);
    const VecU noisy = reinterpret_cast<VecU>(exact) + noise_bits(key, element);
    const VecU bits = exact - exact == splat(0) ? noisy & 0xFFFF0000u : reinterpret_cast<VecU>(exact);
    store(to, reinterpret_cast<VecF>(bits));
    element += kWidth;
  });
}

}  // namespace

const MomentsKernels moments_kernels = {widen_block, narrow_block, narrow_bf16};

}  // namespace tempora::TEMPORA_ISA
