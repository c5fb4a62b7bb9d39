// Numbers that a thread reads and writes at once: 16 bytes of them are what the memory moves best.
#pragma once

#include <mma.cuh>

#include <cstring>

#include "device.cuh"

namespace tempora::device {

template <typename T, int n>
struct alignas(n * sizeof(T) < 16 ? n * sizeof(T) : 16) Vector {
  T at[n];
};

template <typename T>
constexpr int kVector = 16 / sizeof(T);

template <int n, typename T>
__device__ inline void load_vector(const T* from, float (&to)[n]) {
  const auto vector = *reinterpret_cast<const Vector<T, n>*>(from);
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] = load(vector.at + i);
}

template <int n, typename T>
__device__ inline void store_vector(T* to, const float (&from)[n]) {
  Vector<T, n> vector;
#pragma unroll
  for (int i = 0; i < n; ++i) store(vector.at + i, from[i]);
  if constexpr (sizeof vector % 16 != 0) {
    *reinterpret_cast<Vector<T, n>*>(to) = vector;
  } else {
    // In words: the compiler may take the copy of a struct apart.
    constexpr int kPieces = sizeof vector / 16;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      std::uint32_t words[4];
      std::memcpy(words, vector.at + piece * (n / kPieces), sizeof words);
      store_words(to + piece * (n / kPieces), words);
    }
  }
}

template <typename T, int n>
__device__ inline bool whole_vector(const T* data, std::int64_t left) {
  return left >= n && reinterpret_cast<std::uintptr_t>(data) % alignof(Vector<T, n>) == 0;
}

// Where only `left` numbers may be left, or none may be read as a vector. 0 behind the end.
template <int n, typename T>
__device__ inline void load_part(const T* from, std::int64_t left, float (&to)[n]) {
  if (whole_vector<T, n>(from, left)) return load_vector(from, to);
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] = i < left ? load(from + i) : 0.0f;
}

template <int n, typename T>
__device__ inline void store_part(T* to, std::int64_t left, const float (&from)[n]) {
  if (whole_vector<T, n>(to, left)) return store_vector(to, from);
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if (i < left) store(to + i, from[i]);
  }
}

// As if they had been stored and loaded again.
template <typename T, int n>
__device__ inline void round_vector(float (&numbers)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) {
    T rounded;
    store(&rounded, numbers[i]);
    numbers[i] = load(&rounded);
  }
}

// Whether rows of `width` numbers are whole vectors where these may lie.
template <int n, typename T>
bool fits_vectors(const T* data, std::int64_t width) {
  return width % n == 0 && reinterpret_cast<std::uintptr_t>(data) % alignof(Vector<T, n>) == 0;
}

}  // namespace tempora::device
