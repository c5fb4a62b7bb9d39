// Matrix products by oneDNN 2.x or 3.x. Nothing of the library shows here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "../backend.h"

namespace tempora {

// c [m,n] (+)= op(a) [m,k] · op(b) [k,n]; row-major, with the distance between rows of the stored matrices.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t row_a = 0, row_b = 0, row_c = 0;
  DType in = DType::f32;   // a and b
  DType out = DType::f32;  // c
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;

  auto operator<=>(const Product&) const = default;
};

// Compiled products, the most recently used ones kept. Used by one thread at a time.
class ProductCache {
 public:
  ProductCache();
  ~ProductCache();
  ProductCache(const ProductCache&) = delete;
  ProductCache& operator=(const ProductCache&) = delete;

  // m, n, k > 0. Working memory comes from `backend`.
  void run(Backend& backend, const Product& product, const void* a, const void* b, void* c);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string onednn_version();
// True where oneDNN uses bf16 instructions (AVX512-BF16 or AMX).
bool onednn_has_native_bf16();

}  // namespace tempora
