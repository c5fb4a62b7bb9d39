#include "sampling.h"

#include "simd.h"

namespace tempora::TEMPORA_ISA {
namespace {

void block_maxima(const float* logits, std::int64_t n, float* maxima) {
  for (; n > 0; n -= kSamplingBlock, logits += kSamplingBlock) {
    const std::int64_t count = n < kSamplingBlock ? n : kSamplingBlock;
    VecF top = splat(-__builtin_inff());
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) top = max(load(logits + i), top);
    if (i < count) top = max(load_part(logits + i, count - i, -__builtin_inff()), top);
    *maxima++ = max_lane(top);
  }
}

void block_exp_sums(const float* logits, std::int64_t n, float shift, float scale, float* sums) {
  for (; n > 0; n -= kSamplingBlock, logits += kSamplingBlock) {
    const std::int64_t count = n < kSamplingBlock ? n : kSamplingBlock;
    VecF total = splat(0);
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) total += exp((load(logits + i) - shift) * scale);
    if (i < count) total += exp((load_part(logits + i, count - i, -__builtin_inff()) - shift) * scale);
    *sums++ = sum(total);
  }
}

void exp_weights(const float* logits, std::int64_t n, float shift, float scale, float* weights) {
  for_vectors(n, [=](auto load, auto store) { store(weights, exp((load(logits) - shift) * scale)); });
}

}  // namespace

const SamplingKernels sampling_kernels = {block_maxima, block_exp_sums, exp_weights};

}  // namespace tempora::TEMPORA_ISA
