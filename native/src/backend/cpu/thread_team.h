// Threads that stay awake through a stretch of many operations: a decoding step's, or those of training and scoring
// where their large products are our own. Waking them by OpenMP at each of some 300 operations of a decoding step takes
// longer than most of those operations.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace tempora {

class ThreadTeam {
 public:
  using Task = void (*)(const void* data, int thread);

  // Of at most `threads` threads, the caller's one of them; the others sleep until they have work.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Until rest(), whoever waits for work lets other threads of the machine run, but does not sleep.
  void stay_awake() { awake_ = true; }
  void rest() noexcept { awake_ = false; }

  // task(data, thread) once on each thread, by one caller at a time; back when all are done. It must not throw.
  void run(Task task, const void* data);

 private:
  void work(int thread);
  void await_work(std::uint32_t seen) const;

  // Each written by one side and read by the other, so each has a cache line of its own.
  alignas(64) std::atomic<std::uint32_t> round_ = 0;
  alignas(64) std::atomic<int> running_ = 0;
  alignas(64) std::atomic<bool> awake_ = false;
  Task task_ = nullptr;  // of this round; null: the end
  const void* data_ = nullptr;
  std::vector<std::thread> workers_;
};

// The team that the calling thread's operations run on, or null: then OpenMP's threads do.
inline thread_local ThreadTeam* active_team = nullptr;

}  // namespace tempora
