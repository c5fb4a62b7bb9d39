// One call on its way: made on the JavaScript thread from plain structs, worked off on the engine's thread, turned into
// a JavaScript value on the JavaScript thread again. JavaScript values never cross.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace tempora::addon {

// The codes that rejected promises carry; NativeErrorCode in packages/engine/src/addon.ts.
namespace code {
constexpr const char* kCancelled = "cancelled";
constexpr const char* kDisposed = "disposed";
constexpr const char* kOutOfMemory = "out-of-memory";
constexpr const char* kNotFinite = "not-finite";
constexpr const char* kInvalidArgument = "invalid-argument";
constexpr const char* kFailed = "failed";
}  // namespace code

// An Error whose message names the failing call.
Napi::Value make_error(Napi::Env env, const char* code, const std::string& call, const std::string& message);

class AnyJob {
 public:
  // `cancel` may be null: the job then gets a flag of its own, for dispose().
  AnyJob(Napi::Env env, const char* call, std::shared_ptr<CancelFlag> cancel);
  virtual ~AnyJob() = default;
  AnyJob(const AnyJob&) = delete;
  AnyJob& operator=(const AnyJob&) = delete;

  // JavaScript thread.
  Napi::Promise promise() const { return deferred_.Promise(); }
  // Keeps a JavaScript object (and the memory it owns) alive until the job is gone.
  void keep(const Napi::Object& object) { kept_.push_back(Napi::Persistent(object)); }
  // For a job whose promise nobody holds: a rejection of it would end the process as unhandled.
  void unobserved() { unobserved_ = true; }
  void cancel() { cancel_->cancel(); }
  void settle(Napi::Env env);
  void reject(Napi::Env env, const char* code, const std::string& message);

  // Engine's thread. What the work throws is kept for settle().
  void run() noexcept;

 protected:
  virtual void work(const CancelFlag& cancel) = 0;
  virtual Napi::Value convert(Napi::Env env) = 0;

 private:
  const char* call_;
  Napi::Promise::Deferred deferred_;
  std::shared_ptr<CancelFlag> cancel_;
  std::vector<Napi::ObjectReference> kept_;
  bool unobserved_ = false;
  bool ran_ = false;
  const char* code_ = nullptr;  // of what the work threw
  std::string message_;
};

template <typename Result>
class Job : public AnyJob {
 public:
  using Work = std::function<Result(const CancelFlag&)>;
  using Convert = std::function<Napi::Value(Napi::Env, Result&)>;

  Job(Napi::Env env, const char* call, std::shared_ptr<CancelFlag> cancel, Work work, Convert convert)
      : AnyJob(env, call, std::move(cancel)), work_(std::move(work)), convert_(std::move(convert)) {}

 protected:
  void work(const CancelFlag& cancel) override { result_.emplace(work_(cancel)); }
  Napi::Value convert(Napi::Env env) override { return convert_(env, *result_); }

 private:
  Work work_;
  Convert convert_;
  std::optional<Result> result_;
};

// The result of a job that returns nothing.
struct Nothing {};
inline Napi::Value no_value(Napi::Env env, Nothing&) { return env.Undefined(); }

}  // namespace tempora::addon
