// The small objects beside the engine: Cancel, Snapshot, Generation, LiveBatch.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine_state.h"
#include "job_queue.h"

namespace tempora::addon {

class CancelObject : public Napi::ObjectWrap<CancelObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // Throws where `value` is no Cancel.
  static CancelObject& of(const Napi::Value& value);
  explicit CancelObject(const Napi::CallbackInfo& info);
  const std::shared_ptr<CancelFlag>& flag() const { return flag_; }

 private:
  void cancel(const Napi::CallbackInfo&) { flag_->cancel(); }

  std::shared_ptr<CancelFlag> flag_;
};

// What belongs to an engine and lies on its thread under a number: a snapshot or a generation.
struct OwnedByEngine {
  std::shared_ptr<JobQueue> queue;
  std::shared_ptr<EngineState> state;
  std::uint64_t id = 0;
  std::size_t bytes = 0;

  // For constructors, which JavaScript cannot call by itself: it has no External to pass.
  static OwnedByEngine from(const Napi::CallbackInfo& info);
  // In order: after the jobs that were submitted before.
  void drop_in_order(Napi::Env env) const;
  // From a finalizer, where no job can be made; no job of the object is pending then (jobs keep their objects).
  void drop_now() const;
};

class SnapshotObject : public Napi::ObjectWrap<SnapshotObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // Throws where `value` is no Snapshot.
  static SnapshotObject& of(const Napi::Value& value);
  explicit SnapshotObject(const Napi::CallbackInfo& info);
  ~SnapshotObject() override;
  SnapshotObject(const SnapshotObject&) = delete;
  SnapshotObject& operator=(const SnapshotObject&) = delete;

  bool belongs_to(const EngineState& state) const { return owned_.state.get() == &state; }
  bool disposed() const { return disposed_; }
  std::uint64_t id() const { return owned_.id; }

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  OwnedByEngine owned_;
  bool disposed_ = false;
};

class GenerationObject : public Napi::ObjectWrap<GenerationObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit GenerationObject(const Napi::CallbackInfo& info) : ObjectWrap(info), owned_(OwnedByEngine::from(info)) {}
  ~GenerationObject() override;
  GenerationObject(const GenerationObject&) = delete;
  GenerationObject& operator=(const GenerationObject&) = delete;

 private:
  Napi::Value step(const Napi::CallbackInfo& info);
  void finish_rows(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  OwnedByEngine owned_;
  std::weak_ptr<CancelFlag> last_step_;
  std::vector<std::int32_t> to_finish_;  // handed to the engine's thread by the next step
  bool disposed_ = false;
};

class LiveBatchObject : public Napi::ObjectWrap<LiveBatchObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit LiveBatchObject(const Napi::CallbackInfo& info) : ObjectWrap(info), owned_(OwnedByEngine::from(info)) {}
  ~LiveBatchObject() override;
  LiveBatchObject(const LiveBatchObject&) = delete;
  LiveBatchObject& operator=(const LiveBatchObject&) = delete;
  // Of the engine's model; set once, when it is made.
  void set_vocabulary(std::int32_t size) { vocabulary_ = size; }

 private:
  void add(const Napi::CallbackInfo& info);
  void end(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  OwnedByEngine owned_;
  std::int32_t vocabulary_ = 0;
  std::weak_ptr<CancelFlag> last_step_;
  std::vector<std::function<void(LiveBatch&)>> changes_;  // handed to the engine's thread, in order, by the next step
  bool disposed_ = false;
};

}  // namespace tempora::addon
