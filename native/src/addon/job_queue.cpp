#include "job_queue.h"

namespace tempora::addon {

// Holds what it touches by itself: it may outlive the environment (a terminated Worker), and then is never completed.
class JobQueue::Handover : public Napi::AsyncWorker {
 public:
  Handover(Napi::Env env, std::shared_ptr<JobQueue> queue, std::shared_ptr<AnyJob> job)
      : Napi::AsyncWorker(env, "tempora"), queue_(std::move(queue)), job_(std::move(job)) {}

 protected:
  void Execute() override {
    queue_->thread_.run([this] { job_->run(); });
  }
  void OnOK() override { queue_->finished(Env()); }

 private:
  std::shared_ptr<JobQueue> queue_;
  std::shared_ptr<AnyJob> job_;
};

Napi::Promise JobQueue::submit(Napi::Env env, std::unique_ptr<AnyJob> job) {
  const Napi::Promise promise = job->promise();
  if (closed_) {
    job->reject(env, code::kDisposed, "the engine is disposed");
    return promise;
  }
  waiting_.push_back(std::move(job));
  if (running_ == nullptr) start(env);
  return promise;
}

void JobQueue::start(Napi::Env env) {
  running_ = std::move(waiting_.front());
  waiting_.pop_front();
  // Deletes itself when it is done.
  (new Handover(env, shared_from_this(), running_))->Queue();  // NOLINT(cppcoreguidelines-owning-memory)
}

void JobQueue::finished(Napi::Env env) {
  if (abandoned_) return;
  const std::shared_ptr<AnyJob> job = std::move(running_);
  running_ = nullptr;
  if (!closed_ && !waiting_.empty()) start(env);  // first: the engine computes while JavaScript takes the result
  if (closed_) thread_.join();                    // its last task has nothing left to wait for
  after_job_(env);
  job->settle(env);
}

void JobQueue::close(Napi::Env env, std::function<void()> last) {
  if (closed_) return;
  closed_ = true;
  if (running_ != nullptr) running_->cancel();
  thread_.stop(std::move(last));
  for (const auto& job : std::exchange(waiting_, {})) {
    job->reject(env, code::kDisposed, "the engine was disposed before this call began");
  }
  if (running_ == nullptr) {
    thread_.join();
    after_job_(env);
  }
}

void JobQueue::abandon(std::function<void()> last) {
  closed_ = true;
  abandoned_ = true;
  if (running_ != nullptr) running_->cancel();
  waiting_.clear();
  thread_.stop(std::move(last));
  thread_.join();
}

}  // namespace tempora::addon
