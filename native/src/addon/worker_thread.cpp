#include "worker_thread.h"

#include <utility>

namespace tempora::addon {

WorkerThread::WorkerThread() : thread_([this] { loop(); }) {}

WorkerThread::~WorkerThread() {
  stop([] {});
  join();
}

bool WorkerThread::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return true;
}

bool WorkerThread::run(const std::function<void()>& task) {
  std::mutex mutex;
  std::condition_variable finished;
  bool done = false;
  const bool taken = post([&] {
    task();
    // Notified under the lock: the waiting side owns the condition variable and leaves as soon as it may.
    const std::lock_guard lock(mutex);
    done = true;
    finished.notify_one();
  });
  if (!taken) return false;
  std::unique_lock lock(mutex);
  finished.wait(lock, [&] { return done; });
  return true;
}

void WorkerThread::stop(std::function<void()> last) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(last));
    stopping_ = true;
  }
  wake_.notify_one();
}

void WorkerThread::join() {
  if (thread_.joinable()) thread_.join();
}

void WorkerThread::loop() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace tempora::addon
