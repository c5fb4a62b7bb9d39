// Splitting work among a backend's threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace tempora {

// body(begin, end) over [0, count) in contiguous ranges, one a thread, whose borders are multiples of `unit`. Less than
// `grain` items run on the calling thread. What is computed for an item must not depend on the ranges. body must not
// throw. The team always has all threads: libgomp ends and recreates threads when teams change size.
template <typename Body>
void parallel_ranges(int threads, std::int64_t count, std::int64_t grain, std::int64_t unit, const Body& body) {
  if (count <= 0) return;
  if (threads <= 1 || count < grain) {
    body(std::int64_t{0}, count);
    return;
  }
  const std::int64_t units = (count + unit - 1) / unit;
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t i = omp_get_thread_num(), n = omp_get_num_threads();
    const std::int64_t begin = std::min(count, units * i / n * unit), end = std::min(count, units * (i + 1) / n * unit);
    if (begin < end) body(begin, end);
  }
}

// body(item, thread) for each of [0, count), handed out as threads become free: for items of uneven cost. Items must
// be independent of each other, so that the order does not matter. body must not throw.
template <typename Body>
void parallel_items(int threads, std::int64_t count, const Body& body) {
  if (count <= 0) return;
  if (threads <= 1 || count == 1) {
    for (std::int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < count; ++i) body(i, thread);
  }
}

// Work smaller than this many elements is not worth waking threads for.
constexpr std::int64_t kParallelGrain = 16384;

// The rows that make up kParallelGrain.
constexpr std::int64_t row_grain(std::int64_t cols) {
  return std::max<std::int64_t>(2, kParallelGrain / std::max<std::int64_t>(1, cols));
}

}  // namespace tempora
