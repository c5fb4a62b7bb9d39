#include "thread_team.h"

#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tempora {
namespace {

// Some tens of microseconds: longer than one thread is alone between two operations of a decoding step.
constexpr int kSpins = 1000;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename Done>
bool spin_until(const Done& done) {
  for (int i = 0; i < kSpins; ++i) {
    if (done()) return true;
    pause_briefly();
  }
  return false;
}

}  // namespace

ThreadTeam::ThreadTeam(int threads) {
  try {
    for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::system_error&) {  // no more threads to be had: what there are do the work
  }
}

ThreadTeam::~ThreadTeam() {
  task_ = nullptr;
  ++round_;
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::run(Task task, const void* data) {
  task_ = task;
  data_ = data;
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  ++round_;
  round_.notify_all();
  task(data, 0);
  const auto done = [this] { return running_.load(std::memory_order_acquire) == 0; };
  // With more threads than cores, the one that is waited for may want this core.
  if (!spin_until(done)) {
    while (!done()) std::this_thread::yield();
  }
}

void ThreadTeam::work(int thread) {
  for (std::uint32_t seen = 0;; ++seen) {
    await_work(seen);
    if (task_ == nullptr) return;
    task_(data_, thread);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

// A round begins only when all have done the last one, so that none is missed.
void ThreadTeam::await_work(std::uint32_t seen) const {
  const auto begun = [this, seen] { return round_.load(std::memory_order_acquire) != seen; };
  if (spin_until(begun)) return;
  while (!begun()) {
    if (awake_.load(std::memory_order_relaxed)) {
      std::this_thread::yield();
    } else {
      round_.wait(seen, std::memory_order_acquire);
    }
  }
}

}  // namespace tempora
