// What the backend's mma.cuh has, on the emulated device; its comments hold here. Copies arrive as late as they may:
// until then their target is NaN.
#pragma once

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "cuda_bf16.h"
#include "cuda_runtime.h"
#include "tensor_core.h"

namespace tempora::device {

inline float half_of(std::uint32_t word, int half) {
  return __bfloat162float({static_cast<std::uint16_t>(half == 0 ? word : word >> 16)});
}

namespace emulated {

struct Product {
  float* c;
  std::uint32_t a[4], b[2];
};

constexpr int kAtOnce = 8;  // products, on sm_80

inline void multiply(void* const* lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Product& given = *static_cast<const Product*>(lanes[lane]);
    const int g = lane / 4, c = 2 * (lane % 4);
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][c + i / 2 * 8 + half] = half_of(given.a[i], half);
      for (int i = 0; i < 2; ++i) b[c + i * 8 + half][g] = half_of(given.b[i], half);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* to = static_cast<const Product*>(lanes[lane])->c;
    for (int i = 0; i < 4; ++i) {
      const float* row = a[lane / 4 + i / 2 * 8];
      for (int first = 0; first < 16; first += kAtOnce) {
        double products[kAtOnce];
        for (int k = 0; k < kAtOnce; ++k) {
          products[k] = static_cast<double>(row[first + k]) * b[first + k][2 * (lane % 4) + i % 2];
        }
        to[i] = emulation::add_on_tensor_core(to[i], products);
      }
    }
  }
}

struct Matrices {
  const void* row;
  std::uint32_t* to;
};

template <bool transposed>
void load(void* const* lanes) {
  std::uint16_t rows[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const void* row = static_cast<const Matrices*>(lanes[lane])->row;
    emulation::require_shared(row, 16);
    std::memcpy(rows[lane], row, 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4, column = 2 * (lane % 4);
      const std::uint32_t low = transposed ? rows[i * 8 + column][row] : rows[i * 8 + row][column];
      const std::uint32_t high = transposed ? rows[i * 8 + column + 1][row] : rows[i * 8 + row][column + 1];
      static_cast<const Matrices*>(lanes[lane])->to[i] = low | high << 16;
    }
  }
}

}  // namespace emulated

inline void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  emulated::Product product{c, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulation::run_in_warp(emulated::multiply, &product);
}

inline void load_matrices(std::uint32_t (&to)[4], const void* row) {
  emulated::Matrices matrices{row, to};
  emulation::run_in_warp(emulated::load<false>, &matrices);
}

inline void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
  emulated::Matrices matrices{row, to};
  emulation::run_in_warp(emulated::load<true>, &matrices);
}

inline void copy_async(void* to, const void* from, bool there) { emulation::begin_copy(to, from, there); }
inline void commit_copies() { emulation::commit_copies(); }
template <int pending>
void wait_for_copies() {
  emulation::wait_for_copies(pending);
}

inline std::uint32_t pack(float low, float high) {
  return __float2bfloat16_rn(low).bits | static_cast<std::uint32_t>(__float2bfloat16_rn(high).bits) << 16;
}

template <typename T>
T* in_global(T* pointer) {
  return pointer;
}

inline void store_words(void* to, const std::uint32_t (&words)[4]) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0) throw std::logic_error("16 bytes are stored at an odd address");
  std::memcpy(to, words, 16);
}

inline float power_of_two(float x) { return std::exp2(x); }

inline char* launched_shared() { return emulation::launched_shared(); }

}  // namespace tempora::device
