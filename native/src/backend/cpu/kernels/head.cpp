#include "head.h"

#include "exponentials.h"

namespace tempora::TEMPORA_ISA {
// Beside simd.h's own, so that its loops find them.
struct Kept {
  std::uint16_t code;
};

inline VecF load(const Kept* from) {
  // As bf16 they would be in the upper halves.
  const VecU code = reinterpret_cast<VecU>(load(&from->code)) >> 16;
  const VecF x = -reinterpret_cast<VecF>((code << kKeptShift) + kKeptBias);
  return code == kKeptNan ? splat(__builtin_nanf("")) : x;
}

inline VecU kept_code(VecF log_prob) {
  const VecF x = min(splat(0x1p31f), max(splat(0x1p-32f), -log_prob));
  const VecU code = (reinterpret_cast<VecU>(x) - kKeptBias + (1u << (kKeptShift - 1))) >> kKeptShift;
  return log_prob == log_prob ? code : kKeptNan + VecU{};
}

inline void store(Kept* to, VecF v) {
  const VecH h = __builtin_convertvector(kept_code(v), VecH);
  __builtin_memcpy(to, &h, sizeof h);
}

inline void store_one(Kept* to, float x) { to->code = static_cast<std::uint16_t>(kept_code(splat(x))[0]); }

inline float widen(Kept kept) {
  Kept all[kWidth];
  for (Kept& one : all) one = kept;
  return load(all)[0];
}

namespace {

void add_to_log_sum(const float* logits, std::int64_t n, float* largest, double* exp_sum) {
  std::int64_t i = 0;
  VecF top = splat(*largest), next_top = top;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth) {
    top = max(load(logits + i), top);
    next_top = max(load(logits + i + kWidth), next_top);
  }
  top = max(next_top, top);
  for (; i + kWidth <= n; i += kWidth) top = max(load(logits + i), top);
  if (i < n) top = max(load_part(logits + i, n - i, *largest), top);
  const float shift = max_lane(top);
  // All -infinity so far: exp(x - shift) would be NaN.
  const float safe_shift = shift == -__builtin_inff() ? 0.0f : shift;
  VecF sums = splat(0);
  for (i = 0; i + kWidth <= n; i += kWidth) sums += quick_exp(load(logits + i) - safe_shift);
  if (i < n) sums += quick_exp(load_part(logits + i, n - i, -__builtin_inff()) - safe_shift);
  const float rescale = exp(splat(*largest - safe_shift))[0];
  *exp_sum = (*exp_sum == 0 ? 0 : *exp_sum * static_cast<double>(rescale)) + static_cast<double>(sum(sums));
  *largest = shift;
}

void keep(const float* logits, float reference, std::uint16_t* to, std::int64_t n) {
  Kept* kept = reinterpret_cast<Kept*>(to);
  for_vectors(n, [=](auto load, auto store) { store(kept, load(logits) - reference); });
}

void round_all(const float* x, std::uint16_t* to, std::int64_t n) {
  for_vectors(n, [=](auto load, auto store) { store(to, load(x)); });
}

template <typename X, typename Y>
void scaled_exp(const void* logits, float log_sum, float scale, void* d_logits, std::int64_t n) {
  const X* x = static_cast<const X*>(logits);
  Y* y = static_cast<Y*>(d_logits);
  for_streamed_vectors(n, [=](auto load, auto store) {
    const VecF log_prob = load(x) - log_sum;
    store(y, scale * (sizeof(Y) == sizeof(Bf16) ? quick_exp(log_prob) : exp(log_prob)));
  });
}

}  // namespace

const HeadKernels head_kernels = {
    add_to_log_sum,
    keep,
    round_all,
    {{scaled_exp<float, float>, scaled_exp<float, Bf16>}, {scaled_exp<Kept, float>, scaled_exp<Kept, Bf16>}},
};

}  // namespace tempora::TEMPORA_ISA
