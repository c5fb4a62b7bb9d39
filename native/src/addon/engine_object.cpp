#include "engine_object.h"

#include "addon.h"
#include "convert.h"

namespace tempora::addon {

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {
                         InstanceMethod<&EngineObject::ready>("ready"),
                         InstanceMethod<&EngineObject::set_parameter>("setParameter"),
                         InstanceMethod<&EngineObject::get_parameter>("getParameter"),
                         InstanceMethod<&EngineObject::get_gradient>("getGradient"),
                         InstanceMethod<&EngineObject::add_adapter>("addAdapter"),
                         InstanceMethod<&EngineObject::remove_adapter>("removeAdapter"),
                         InstanceMethod<&EngineObject::activate_adapter>("activateAdapter"),
                         InstanceMethod<&EngineObject::merge_adapter>("mergeAdapter"),
                         InstanceMethod<&EngineObject::unmerge_adapter>("unmergeAdapter"),
                         InstanceMethod<&EngineObject::log_probs>("logProbs"),
                         InstanceMethod<&EngineObject::preference_step>("preferenceStep"),
                         InstanceMethod<&EngineObject::accumulate>("accumulate"),
                         InstanceMethod<&EngineObject::hidden_states>("hiddenStates"),
                         InstanceMethod<&EngineObject::zero_gradients>("zeroGradients"),
                         InstanceMethod<&EngineObject::optimizer_step>("optimizerStep"),
                         InstanceMethod<&EngineObject::get_optimizer_state>("getOptimizerState"),
                         InstanceMethod<&EngineObject::set_optimizer_state>("setOptimizerState"),
                         InstanceMethod<&EngineObject::set_optimizer_steps>("setOptimizerSteps"),
                         InstanceMethod<&EngineObject::reset_optimizer>("resetOptimizer"),
                         InstanceMethod<&EngineObject::snapshot>("snapshot"),
                         InstanceMethod<&EngineObject::restore>("restore"),
                         InstanceMethod<&EngineObject::start_generation>("startGeneration"),
                         InstanceMethod<&EngineObject::start_batch>("startBatch"),
                         InstanceAccessor<&EngineObject::optimizer_steps>("optimizerSteps"),
                         InstanceMethod<&EngineObject::memory>("memory"),
                         InstanceMethod<&EngineObject::dispose>("dispose"),
                     });
}

EngineObject::EngineObject(const Napi::CallbackInfo& info)
    : ObjectWrap(info), shape_(model_shape_from(info[0])), options_(engine_options_from(info[1])) {
  // `this` outlives the call: every job keeps its engine's JavaScript object, and close() is called by that object.
  queue_ = std::make_shared<JobQueue>([this](Napi::Env env) { report_external_memory(env); });
  addon_data(info.Env()).engines.insert(this);
}

EngineObject::~EngineObject() {
  if (abandoned_) return;
  addon_data(Env()).engines.erase(this);
  abandon();
}

std::function<void()> EngineObject::closing() const {
  return [state = state_] { state->close(); };
}

void EngineObject::abandon() {
  abandoned_ = true;
  queue_->abandon(closing());
}

void EngineObject::dispose(const Napi::CallbackInfo& info) { queue_->close(info.Env(), closing()); }

void EngineObject::report_external_memory(Napi::Env env) {
  // Collecting JavaScript's objects sooner makes no room on a device.
  const auto bytes = static_cast<std::int64_t>(state_->report().host);
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes - reported_bytes_);
  reported_bytes_ = bytes;
}

}  // namespace tempora::addon
