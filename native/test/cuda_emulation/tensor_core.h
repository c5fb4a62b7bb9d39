// How tensor cores add, by published measurements (Fasi, Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA
// tensor cores, 2021): products are exact; some of them and the sum so far are brought to the exponent of the largest,
// what lies too far below it is cut off, and so is the sum, which a processor would round. Devices differ in how many
// they take at once and in how far they keep; here it is little of both.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace tempora::emulation {

constexpr int kKeptBits = 24;  // behind the largest one's leading bit; f32 has 23

inline int exponent_of(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<int>(bits >> 52 & 0x7ff);
}

inline double power_of_two(int biased_exponent) {
  const std::uint64_t bits = static_cast<std::uint64_t>(biased_exponent) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

// Towards zero.
inline float cut_to_float(double x) {
  const float nearest = static_cast<float>(x);
  return std::abs(static_cast<double>(nearest)) > std::abs(x) ? std::nextafter(nearest, 0.0f) : nearest;
}

// sum + Σ terms.
template <int count>
float add_on_tensor_core(float sum, const double (&terms)[count]) {
  int largest = exponent_of(sum);
  for (const double term : terms) largest = std::max(largest, exponent_of(term));
  if (largest == 0x7ff) {  // NaN and infinity come through
    double all = sum;
    for (const double term : terms) all += term;
    return static_cast<float>(all);
  }
  if (largest <= kKeptBits) return sum;  // all are zero
  const double unit = power_of_two(largest - kKeptBits), scale = power_of_two(2046 - largest + kKeptBits);
  auto units = static_cast<std::int64_t>(static_cast<double>(sum) * scale);
  for (const double term : terms) units += static_cast<std::int64_t>(term * scale);
  return cut_to_float(static_cast<double>(units) * unit);
}

}  // namespace tempora::emulation
