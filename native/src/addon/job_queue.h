// The calls of one engine, one at a time and in order.
//
// Waiting jobs lie in a queue on the JavaScript thread and hold no thread of the runtime's pool. The one that runs has
// an AsyncWorker, whose only work is to hand it to the engine's own thread (worker_thread.h) and to wait: AsyncWorker
// is the one way back to the JavaScript thread that survives a terminated Worker (thread-safe functions abort the
// process).
#pragma once

#include <napi.h>

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "job.h"
#include "worker_thread.h"

namespace tempora::addon {

class JobQueue : public std::enable_shared_from_this<JobQueue> {
 public:
  // `after_job` is called on the JavaScript thread when a job has run, before its promise settles.
  explicit JobQueue(std::function<void(Napi::Env)> after_job) : after_job_(std::move(after_job)) {}

  // JavaScript thread, all of these. After close() submit() rejects.
  Napi::Promise submit(Napi::Env env, std::unique_ptr<AnyJob> job);
  bool closed() const { return closed_; }
  bool busy() const { return running_ != nullptr; }
  // Cancels the running job, rejects the waiting ones, and has `last` run on the engine's thread when it is free. Waits
  // for that only when no job is running. Idempotent.
  void close(Napi::Env env, std::function<void()> last);
  // close() at the end of the environment: promises are left alone; waits for the thread.
  void abandon(std::function<void()> last);

  // Any thread: fire and forget, on the engine's thread.
  bool post(std::function<void()> task) { return thread_.post(std::move(task)); }

 private:
  class Handover;

  void start(Napi::Env env);
  void finished(Napi::Env env);

  std::function<void(Napi::Env)> after_job_;
  std::deque<std::unique_ptr<AnyJob>> waiting_;
  std::shared_ptr<AnyJob> running_;
  bool closed_ = false;
  bool abandoned_ = false;
  WorkerThread thread_;
};

}  // namespace tempora::addon
