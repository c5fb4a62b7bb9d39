// Engine of packages/engine/src/addon.ts: one model on one device, its thread and the queue of its calls.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "engine_state.h"
#include "handles.h"
#include "job_queue.h"

namespace tempora::addon {

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit EngineObject(const Napi::CallbackInfo& info);
  ~EngineObject() override;
  EngineObject(const EngineObject&) = delete;
  EngineObject& operator=(const EngineObject&) = delete;

  // The environment ends: stops the work and waits for the thread.
  void abandon();

 private:
  Napi::Value ready(const Napi::CallbackInfo& info);
  Napi::Value set_parameter(const Napi::CallbackInfo& info);
  Napi::Value get_parameter(const Napi::CallbackInfo& info);
  Napi::Value get_gradient(const Napi::CallbackInfo& info);
  Napi::Value add_adapter(const Napi::CallbackInfo& info);
  Napi::Value remove_adapter(const Napi::CallbackInfo& info);
  Napi::Value activate_adapter(const Napi::CallbackInfo& info);
  Napi::Value merge_adapter(const Napi::CallbackInfo& info);
  Napi::Value unmerge_adapter(const Napi::CallbackInfo& info);
  Napi::Value log_probs(const Napi::CallbackInfo& info);
  Napi::Value preference_step(const Napi::CallbackInfo& info);
  Napi::Value accumulate(const Napi::CallbackInfo& info);
  Napi::Value hidden_states(const Napi::CallbackInfo& info);
  Napi::Value zero_gradients(const Napi::CallbackInfo& info);
  Napi::Value optimizer_step(const Napi::CallbackInfo& info);
  Napi::Value get_optimizer_state(const Napi::CallbackInfo& info);
  Napi::Value set_optimizer_state(const Napi::CallbackInfo& info);
  Napi::Value set_optimizer_steps(const Napi::CallbackInfo& info);
  Napi::Value reset_optimizer(const Napi::CallbackInfo& info);
  Napi::Value snapshot(const Napi::CallbackInfo& info);
  Napi::Value restore(const Napi::CallbackInfo& info);
  Napi::Value start_generation(const Napi::CallbackInfo& info);
  Napi::Value start_batch(const Napi::CallbackInfo& info);
  Napi::Value optimizer_steps(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  // Queues `work`, which gets the engine's state and the cancel flag. `kept` stays alive until it is done.
  template <typename Result, typename Work, typename Convert>
  Napi::Value submit(const Napi::CallbackInfo& info, const char* call, const Napi::Value& cancel, Work work,
                     Convert convert, const Napi::Object& kept = {});
  template <void (Engine::*change)(int)>
  Napi::Value change_adapter(const Napi::CallbackInfo& info, const char* call);
  std::function<void()> closing() const;
  void report_external_memory(Napi::Env env);

  ModelShape shape_;
  EngineOptions options_;
  std::shared_ptr<EngineState> state_ = std::make_shared<EngineState>();
  std::shared_ptr<JobQueue> queue_;
  std::int64_t reported_bytes_ = 0;
  bool abandoned_ = false;
};

}  // namespace tempora::addon
