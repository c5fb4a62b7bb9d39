#include "dropout.h"

#include "noise.h"

namespace tempora::TEMPORA_ISA {
namespace {

inline VecF kept(VecF x, const DropoutRow& row, std::int64_t element) {
  if (row.threshold == 0) return x;
  const VecU bits = noise_bits(row.key, element);
  return bits >= row.threshold ? x * row.scale : VecF{};
}

template <typename T>
void forward(const void* data, const DropoutRow& row, float* out, std::int64_t n) {
  const T* x = static_cast<const T*>(data);
  std::int64_t element = 0;
  for_vectors(n, [=, &row, &element](auto load, auto store) {
    store(out, kept(load(x), row, element));
    element += kWidth;
  });
}

template <typename T>
void backward(const float* d_out, const DropoutRow& row, void* data, std::int64_t n) {
  T* d_x = static_cast<T*>(data);
  std::int64_t element = 0;
  for_vectors(n, [=, &row, &element](auto load, auto store) {
    store(d_x, load(d_x) + kept(load(d_out), row, element));
    element += kWidth;
  });
}

}  // namespace

const DropoutKernels dropout_kernels = {{forward<float>, forward<Bf16>}, {backward<float>, backward<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
