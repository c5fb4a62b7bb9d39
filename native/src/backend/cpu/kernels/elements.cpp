#include "elements.h"

#include "exponentials.h"

namespace tempora::TEMPORA_ISA {
namespace {

void widen_all(const std::uint16_t* from, float* to, std::int64_t n) {
  for_vectors(n, [=](auto load, auto store) { store(to, load(from)); });
}

void narrow_all(const float* from, std::uint16_t* to, std::int64_t n) {
  for_vectors(n, [=](auto load, auto store) { store(to, load(from)); });
}

template <typename T>
bool all_finite(const void* data, std::int64_t n) {
  const T* x = static_cast<const T*>(data);
  // x - x is 0 for finite x and NaN for the others.
  VecF differences = splat(0);
  for_vectors(n, [&](auto load, auto) {
    const VecF v = load(x);
    differences += v - v;
  });
  return sum(differences) == 0;
}

template <typename T>
void add(void* x_data, const void* y_data, std::int64_t n) {
  T* x = static_cast<T*>(x_data);
  const T* y = static_cast<const T*>(y_data);
  for_vectors(n, [=](auto load, auto store) { store(x, load(x) + load(y)); });
}

void scale_all(float* x, float factor, std::int64_t n) {
  for_vectors(n, [=](auto load, auto store) { store(x, load(x) * factor); });
}

template <typename T>
void swiglu(const void* gate_data, const void* up_data, void* out_data, std::int64_t n) {
  const T* gate = static_cast<const T*>(gate_data);
  const T* up = static_cast<const T*>(up_data);
  T* out = static_cast<T*>(out_data);
  for_vectors(n, [=](auto load, auto store) {
    const VecF g = load(gate);
    store(out, g * sigmoid<T>(g) * load(up));
  });
}

// d silu(g)/dg = s (1 + g (1 - s)), s = sigmoid(g)
template <typename T>
void swiglu_backward(const void* gate_data, const void* up_data, const void* d_out_data, void* d_gate_data,
                     void* d_up_data, void* out_data, std::int64_t n) {
  const T* gate = static_cast<const T*>(gate_data);
  const T* up = static_cast<const T*>(up_data);
  const T* d_out = static_cast<const T*>(d_out_data);
  T* d_gate = static_cast<T*>(d_gate_data);
  T* d_up = static_cast<T*>(d_up_data);
  T* out = static_cast<T*>(out_data);
  for_vectors(n, [=](auto load, auto store) {
    const VecF g = load(gate), u = load(up), d = load(d_out);
    const VecF s = sigmoid<T>(g);
    const VecF silu = g * s;
    if (out != nullptr) store(out, silu * u);
    store(d_gate, d * u * (s + silu * (1.0f - s)));
    store(d_up, d * silu);
  });
}

template <typename T>
double sum_of_squares(const void* data, std::int64_t n) {
  const T* x = static_cast<const T*>(data);
  VecD low{}, high{};
  for_streamed_vectors(n, [&](auto load, auto) {
    const VecF v = load(x);
    low += low_double(v) * low_double(v);
    high += high_double(v) * high_double(v);
  });
  return sum(low) + sum(high);
}

}  // namespace

const ElementKernels element_kernels = {
    widen_all,
    narrow_all,
    {all_finite<float>, all_finite<Bf16>},
    {add<float>, add<Bf16>},
    scale_all,
    {swiglu<float>, swiglu<Bf16>},
    {swiglu_backward<float>, swiglu_backward<Bf16>},
    {sum_of_squares<float>, sum_of_squares<Bf16>},
};

}  // namespace tempora::TEMPORA_ISA
