#include "norm.h"

#include "simd.h"

namespace tempora::TEMPORA_ISA {
namespace {

template <typename X>
float mean_of_squares(const X* x, std::int64_t cols) {
  VecF squares = splat(0);
  for_vectors(cols, [&](auto load, auto) { squares += load(x) * load(x); });
  return sum(squares) / static_cast<float>(cols);
}

template <typename X, typename Y>
void norm_rows(const X* x, const Y* weight, float eps, Y* y, float* rstd, std::int64_t rows, std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const float scale = 1.0f / __builtin_sqrtf(mean_of_squares(x, cols) + eps);
    rstd[r] = scale;
    for_vectors(cols, [=](auto load, auto store) { store(y, load(x) * scale * load(weight)); });
  }
}

// With n = x · rstd: d_x = rstd · (w d_y - n · mean(n w d_y)), d_weight = Σ n d_y.
template <typename T>
void norm_rows_backward(const T* x, const T* weight, const float* rstd, const T* d_y, T* d_x, float* partial_weight,
                        std::int64_t rows, std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r, x += cols, d_y += cols, d_x += cols) {
    const float scale = rstd[r];
    VecF dot = splat(0);
    for_streamed_vectors(cols, [&](auto load, auto store) {
      const VecF normed_gradient = load(x) * scale * load(d_y);
      store(partial_weight, load(partial_weight) + normed_gradient);
      dot += normed_gradient * load(weight);
    });
    const float mean = sum(dot) / static_cast<float>(cols);
    for_vectors(cols, [=](auto load, auto store) {
      store(d_x, scale * (load(weight) * load(d_y) - load(x) * (scale * mean)));
    });
  }
}

template <typename T>
void rms_norm(const float* x, const void* weight, float eps, void* y, float* rstd, std::int64_t rows,
              std::int64_t cols) {
  norm_rows(x, static_cast<const T*>(weight), eps, static_cast<T*>(y), rstd, rows, cols);
}

template <typename T>
void rms_norm_backward(const float* x, const void* weight_data, const float* rstd, const float* d_y, void* y_data,
                       float* d_x, void* rounded_data, float* partial_weight, std::int64_t rows, std::int64_t cols) {
  const T* weight = static_cast<const T*>(weight_data);
  T *y = static_cast<T*>(y_data), *rounded = static_cast<T*>(rounded_data);
  for (std::int64_t r = 0; r < rows; ++r, x += cols, d_y += cols, d_x += cols) {
    const float scale = rstd[r];
    VecF dot = splat(0);
    for_streamed_vectors(cols, [&](auto load, auto store) {
      const VecF normed = load(x) * scale;
      if (y != nullptr) store(y, normed * load(weight));
      const VecF normed_gradient = normed * load(d_y);
      store(partial_weight, load(partial_weight) + normed_gradient);
      dot += normed_gradient * load(weight);
    });
    const float mean = sum(dot) / static_cast<float>(cols);
    for_vectors(cols, [=](auto load, auto store) {
      const VecF d = load(d_x) + scale * (load(weight) * load(d_y) - load(x) * (scale * mean));
      store(d_x, d);
      if (rounded != nullptr) store(rounded, d);
    });
    if (y != nullptr) y += cols;
    if (rounded != nullptr) rounded += cols;
  }
}

template <typename T>
void head_norm(const void* x, const void* weight, float eps, void* y, float* rstd, std::int64_t rows,
               std::int64_t cols) {
  norm_rows(static_cast<const T*>(x), static_cast<const T*>(weight), eps, static_cast<T*>(y), rstd, rows, cols);
}

template <typename T>
void head_norm_backward(const void* x, const void* weight, const float* rstd, const void* d_y, void* d_x,
                        float* partial_weight, std::int64_t rows, std::int64_t cols) {
  norm_rows_backward(static_cast<const T*>(x), static_cast<const T*>(weight), rstd, static_cast<const T*>(d_y),
                     static_cast<T*>(d_x), partial_weight, rows, cols);
}

template <typename X, typename B>
void add_bias(void* data, const void* bias_data, std::int64_t rows, std::int64_t cols) {
  X* x = static_cast<X*>(data);
  const B* bias = static_cast<const B*>(bias_data);
  for (std::int64_t r = 0; r < rows; ++r, x += cols) {
    for_vectors(cols, [=](auto load, auto store) { store(x, load(x) + load(bias)); });
  }
}

template <typename T>
void column_sums(const void* data, float* partial, std::int64_t rows, std::int64_t cols) {
  const T* x = static_cast<const T*>(data);
  for (std::int64_t r = 0; r < rows; ++r, x += cols) {
    for_vectors(cols, [=](auto load, auto store) { store(partial, load(partial) + load(x)); });
  }
}

template <typename T>
void rope(void* data, const std::int32_t* positions, const float* table, float sign, std::int64_t rows, int heads,
          int head_dim) {
  T* x = static_cast<T*>(data);
  const int half = head_dim / 2;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* cosines = table + static_cast<std::int64_t>(positions[r]) * head_dim;
    const float* sines = cosines + half;
    for (int head = 0; head < heads; ++head, x += head_dim) {
      T* first = x;
      T* second = x + half;
      for_vectors(half, [=](auto load, auto store) {
        const VecF a = load(first), b = load(second), c = load(cosines), s = sign * load(sines);
        store(first, a * c - b * s);
        store(second, b * c + a * s);
      });
    }
  }
}

}  // namespace

const NormKernels norm_kernels = {
    {rms_norm<float>, rms_norm<Bf16>},
    {rms_norm_backward<float>, rms_norm_backward<Bf16>},
    {head_norm<float>, head_norm<Bf16>},
    {head_norm_backward<float>, head_norm_backward<Bf16>},
    {{add_bias<float, float>, add_bias<float, Bf16>}, {add_bias<Bf16, float>, add_bias<Bf16, Bf16>}},
    {column_sums<float>, column_sums<Bf16>},
    {rope<float>, rope<Bf16>},
};

}  // namespace tempora::TEMPORA_ISA
