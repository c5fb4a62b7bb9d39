#include "addon.h"

#include "convert.h"
#include "engine_object.h"

namespace tempora::addon {

AddonData& addon_data(Napi::Env env) { return *env.GetInstanceData<AddonData>(); }

namespace {

Napi::Value device_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const CpuInfo cpu = cpu_info();
  const CudaInfo cuda = cuda_info();
  const auto cuda_object = Napi::Object::New(env);
  const auto devices = Napi::Array::New(env);
  for (const std::string& device : cuda.devices) devices.Set(devices.Length(), device);
  cuda_object.Set("built", cuda.built);
  cuda_object.Set("devices", devices);
  cuda_object.Set("problem", cuda.problem.empty() ? env.Null() : Napi::Value(Napi::String::New(env, cuda.problem)));
  const auto object = Napi::Object::New(env);
  object.Set("cpuKernels", cpu.kernels);
  object.Set("cpuName", cpu.name);
  object.Set("threads", cpu.threads);
  object.Set("oneDnn", cpu.onednn);
  object.Set("cuda", cuda_object);
  return object;
}

Napi::Value loss_of_sums(const Napi::CallbackInfo& info) {
  const PreferenceLoss loss = preference_loss_from(info[0]);
  const PreferenceSums sums = preference_sums_from(info[1]);
  return loss_result_to(info.Env(), preference_loss(loss, sums, 0, 0));
}

Napi::Value noop(const Napi::CallbackInfo& info) {
  std::shared_ptr<JobQueue>& queue = addon_data(info.Env()).calls;
  if (queue == nullptr) queue = std::make_shared<JobQueue>([](Napi::Env) {});
  return queue->submit(info.Env(),
                       std::make_unique<Job<Nothing>>(
                           info.Env(), "noop", nullptr, [](const CancelFlag&) { return Nothing{}; }, no_value));
}

// Runs when a Worker ends or is terminated and when the process ends in order; process.exit() runs nothing of ours.
void end_environment(AddonData* data) {
  for (EngineObject* engine : std::exchange(data->engines, {})) engine->abandon();
  if (data->calls != nullptr) data->calls->abandon([] {});
}

// What throws C++ exceptions other than Napi::Error is caught here, not by the runtime.
template <Napi::Value (*function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return function(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData();  // NOLINT(cppcoreguidelines-owning-memory): owned by the environment from here on
  env.SetInstanceData(data);
  env.AddCleanupHook(end_environment, data);
  data->generation = Napi::Persistent(GenerationObject::define(env));
  data->live_batch = Napi::Persistent(LiveBatchObject::define(env));
  data->snapshot = Napi::Persistent(SnapshotObject::define(env));
  exports.Set("Engine", EngineObject::define(env));
  exports.Set("Cancel", CancelObject::define(env));
  exports.Set("preferenceLoss", Napi::Function::New<guarded<loss_of_sums>>(env, "preferenceLoss"));
  exports.Set("deviceInfo", Napi::Function::New<guarded<device_info>>(env, "deviceInfo"));
  exports.Set("noop", Napi::Function::New<noop>(env, "noop"));
  return exports;
}

NODE_API_MODULE(tempora, init)

}  // namespace
}  // namespace tempora::addon
