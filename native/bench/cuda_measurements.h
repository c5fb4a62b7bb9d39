// What measures the CUDA backend's kernels: operands, the best of some runs, and the floor beside it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace tempora {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Ceilings {
  double flops = 0, bytes = 0;  // a second
};

// A group of measurements on a backend of its own, whose peak of memory is then theirs.
class CudaMeasurements {
 protected:
  CudaMeasurements(std::string filter, Ceilings ceilings)
      : owner_(make_cuda_backend()), backend_(*owner_), filter_(std::move(filter)), ceilings_(ceilings) {}

  // Small numbers; the values do not matter to the time, but none may be NaN or denormal.
  Matrix matrix(std::int64_t rows, std::int64_t cols, DType dtype);
  std::unique_ptr<Weight> random_weight(std::int64_t rows, std::int64_t cols);
  const std::int32_t* ints(const std::vector<std::int32_t>& values);
  float* floats(std::int64_t count) { return matrix(1, count, DType::f32).f32(); }
  double best_seconds(const std::function<void()>& work);
  void report(const std::string& name, double flops, double bytes, const std::function<void()>& work);
  bool wanted(const std::string& name) const { return name.find(filter_) != std::string::npos; }

  std::unique_ptr<Backend> owner_;
  Backend& backend_;
  std::string filter_;
  Ceilings ceilings_;
  std::vector<Buffer> buffers_;
};

inline Matrix CudaMeasurements::matrix(std::int64_t rows, std::int64_t cols, DType dtype) {
  Matrix m{nullptr, dtype, rows, cols};
  buffers_.push_back(backend_.allocate(m.bytes(), MemoryUse::workspace));
  m.data = buffers_.back().data();
  // A block of numbers, copied on until the matrix is full.
  const std::int64_t block = std::min<std::int64_t>(m.size(), 1 << 20);
  std::vector<float> host(static_cast<std::size_t>(block));
  std::uint32_t state = 1;
  for (float& x : host) {
    state = state * 1664525u + 1013904223u;
    x = static_cast<float>(state >> 8) * 0x1p-26f - 0x1p-3f;
  }
  const Buffer staging = backend_.allocate(host.size() * 4, MemoryUse::workspace);
  backend_.copy_in(staging.data(), host.data(), host.size() * 4);
  for (std::int64_t at = 0; at < m.size(); at += block) {
    const std::int64_t count = std::min(block, m.size() - at);
    char* to = static_cast<char*>(m.data) + static_cast<std::size_t>(at) * size_of(dtype);
    backend_.cast({staging.data(), DType::f32, 1, count}, {to, dtype, 1, count});
  }
  return m;
}

inline const std::int32_t* CudaMeasurements::ints(const std::vector<std::int32_t>& values) {
  buffers_.push_back(backend_.allocate(values.size() * 4, MemoryUse::workspace));
  backend_.copy_in(buffers_.back().data(), values.data(), values.size() * 4);
  return static_cast<const std::int32_t*>(buffers_.back().data());
}

// The best of some runs, after one that warms up.
inline double CudaMeasurements::best_seconds(const std::function<void()>& work) {
  work();
  backend_.synchronize();
  double best = 1e30, total = 0;
  for (int runs = 0; runs < 30 && (runs < 3 || total < 1); ++runs) {
    const double start = seconds_now();
    work();
    backend_.synchronize();
    const double seconds = seconds_now() - start;
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

inline std::unique_ptr<Weight> CudaMeasurements::random_weight(std::int64_t rows, std::int64_t cols) {
  auto weight = backend_.make_weight(WeightFormat::bf16, rows, cols);
  backend_.copy(weight->storage.data(), matrix(rows, cols, DType::bf16).data, weight->storage.bytes());
  return weight;
}

// flops and bytes are what the operation cannot do without.
inline void CudaMeasurements::report(const std::string& name, double flops, double bytes,
                                     const std::function<void()>& work) {
  if (!wanted(name)) return;
  const std::size_t before = backend_.used(MemoryUse::workspace);
  const double seconds = best_seconds(work);
  const double floor = std::max(flops / ceilings_.flops, bytes / ceilings_.bytes);
  const std::size_t peak = std::max(backend_.peak(), before) - before;
  std::printf("%-52s %9.3f ms  floor %8.3f ms  %5.1f %% of it  %7.1f TFLOP/s %7.1f GB/s  %6.0f MB beside operands\n",
              name.c_str(), seconds * 1e3, floor * 1e3, 100 * floor / seconds, flops / seconds * 1e-12,
              bytes / seconds * 1e-9, static_cast<double>(peak) * 1e-6);
  std::fflush(stdout);
}

}  // namespace tempora
