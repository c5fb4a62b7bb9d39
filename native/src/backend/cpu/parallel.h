// Splitting work among a backend's threads: those of the calling thread's team where it has one, else OpenMP's.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "thread_team.h"

namespace tempora {

// body(thread, threads) once on each thread.
template <typename Body>
void on_all_threads(int threads, const Body& body) {
  // Taken off meanwhile: a body that splits its work again must not wait for the team that it is a part of.
  if (ThreadTeam* const team = std::exchange(active_team, nullptr); team != nullptr) {
    struct Call {
      const Body& body;
      int threads;
    } const call{body, team->threads()};
    team->run(
        [](const void* data, int thread) {
          const Call& one = *static_cast<const Call*>(data);
          one.body(thread, one.threads);
        },
        &call);
    active_team = team;
    return;
  }
#pragma omp parallel num_threads(threads)
  body(omp_get_thread_num(), omp_get_num_threads());
}

// How much less work is worth splitting among a team that is awake.
constexpr std::int64_t kTeamGain = 16;

// body(begin, end) over [0, count) in contiguous ranges, one a thread, whose borders are multiples of `unit`. Less than
// `grain` items run on the calling thread. What is computed for an item must not depend on the ranges. body must not
// throw. The team always has all threads: libgomp ends and recreates threads when teams change size.
template <typename Body>
void parallel_ranges(int threads, std::int64_t count, std::int64_t grain, std::int64_t unit, const Body& body) {
  if (count <= 0) return;
  if (threads <= 1 || count < (active_team == nullptr ? grain : std::max<std::int64_t>(2, grain / kTeamGain))) {
    body(std::int64_t{0}, count);
    return;
  }
  const std::int64_t units = (count + unit - 1) / unit;
  on_all_threads(threads, [&](std::int64_t i, std::int64_t n) {
    const std::int64_t begin = std::min(count, units * i / n * unit), end = std::min(count, units * (i + 1) / n * unit);
    if (begin < end) body(begin, end);
  });
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
  if (active_team != nullptr) {
    std::atomic<std::int64_t> next{0};
    on_all_threads(threads, [&](int thread, int) {
      for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(i, thread);
    });
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

// As parallel_items, but each thread begins with a range of its own, [begins[thread], begins[thread + 1]): for items
// that cost less behind their neighbours. A thread that is done helps another while at least so many items are left of
// that one's range, since they cost it more. Ranges of threads that are not there are done whole.
template <typename Body>
void parallel_kept_ranges(int threads, const std::vector<std::int64_t>& begins, std::int64_t least_left,
                          const Body& body) {
  if (threads <= 1) {
    for (std::int64_t i = begins.front(); i < begins.back(); ++i) body(i, 0);
    return;
  }
  struct alignas(64) Range {
    std::atomic<std::int64_t> next;
  };
  std::vector<Range> ranges(static_cast<std::size_t>(threads));
  for (std::size_t i = 0; i < ranges.size(); ++i) ranges[i].next = begins[i];
  on_all_threads(threads, [&](std::int64_t thread, std::int64_t present) {
    for (int i = 0; i < threads; ++i) {
      const std::int64_t owner = (thread + i) % threads, end = begins[static_cast<std::size_t>(owner) + 1];
      std::atomic<std::int64_t>& next = ranges[static_cast<std::size_t>(owner)].next;
      const std::int64_t least = i == 0 || owner >= present ? 1 : least_left;
      while (next.load(std::memory_order_relaxed) + least <= end) {
        const std::int64_t item = next.fetch_add(1, std::memory_order_relaxed);
        if (item < end) body(item, static_cast<int>(thread));
      }
    }
  });
}

// With ranges that are the same in every call of so many items: what a thread read for an item before may still be in
// its caches, or in its memory.
template <typename Body>
void parallel_kept_items(int threads, std::int64_t count, const Body& body) {
  if (threads <= 1 || count <= 1) return parallel_items(threads, count, body);
  std::vector<std::int64_t> begins;
  for (int thread = 0; thread <= threads; ++thread) begins.push_back(count * thread / threads);
  parallel_kept_ranges(threads, begins, 1, body);
}

}  // namespace tempora
