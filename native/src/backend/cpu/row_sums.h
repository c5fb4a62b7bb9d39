// Sums over rows whose bits depend neither on the number of threads nor on their timing.
#pragma once

#include <cstring>

#include "cpu_backend.h"
#include "parallel.h"

namespace tempora {

// target f32 [cols] += the sum of what body(begin, end, partial) adds into its zeroed partial f32 [cols], over fixed
// blocks of rows, block after block; nothing where target is null. Also body's place to do whatever else is to be done
// once for each row.
template <typename Body>
void sum_over_rows(CpuBackend& backend, std::int64_t rows, std::int64_t cols, float* target, const Body& body) {
  if (rows == 0) return;
  constexpr std::int64_t kMostBlocks = 64;
  const std::int64_t block_rows = std::max<std::int64_t>(16, (rows + kMostBlocks - 1) / kMostBlocks);
  const std::int64_t blocks = (rows + block_rows - 1) / block_rows;
  const std::int64_t stride = (cols + 15) / 16 * 16;
  const Buffer buffer = backend.workspace(static_cast<std::size_t>(blocks * stride) * sizeof(float));
  float* partials = static_cast<float*>(buffer.data());
  const std::int64_t grain = rows * cols < kParallelGrain ? blocks + 1 : 2;
  parallel_ranges(backend.threads(), blocks, grain, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      float* partial = partials + block * stride;
      std::memset(partial, 0, static_cast<std::size_t>(cols) * sizeof(float));
      body(block * block_rows, std::min(rows, (block + 1) * block_rows), partial);
    }
  });
  if (target == nullptr) return;
  parallel_ranges(backend.threads(), cols, kParallelGrain / blocks + 1, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      const float* partial = partials + block * stride;
      for (std::int64_t i = begin; i < end; ++i) target[i] += partial[i];
    }
  });
}

}  // namespace tempora
