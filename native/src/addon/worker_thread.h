// The one thread that touches an engine.
//
// Why a thread of an engine's own instead of the runtime's pool: OpenMP keeps a team of threads for every thread that
// ever opened a parallel region, so work that wanders over the pool would keep several teams (and their spinning) alive
// at once; and everything with a destructor that gives device memory back has one place to run.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace tempora::addon {

class WorkerThread {
 public:
  WorkerThread();
  ~WorkerThread();
  WorkerThread(const WorkerThread&) = delete;
  WorkerThread& operator=(const WorkerThread&) = delete;

  // Runs `task` after those posted before. False (and no run) once stop() was called. `task` must not throw.
  bool post(std::function<void()> task);
  // Runs `task` and waits for it. False (and no run) once stop() was called.
  bool run(const std::function<void()>& task);
  // Lets what was posted finish, with `last` at the end; nothing is taken any more.
  void stop(std::function<void()> last);
  // Waits for the thread to end. After stop().
  void join();

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tempora::addon
