// What one environment (the main thread or a Worker) keeps: constructors, and the engines to stop when it ends.
#pragma once

#include <napi.h>

#include <memory>
#include <unordered_set>

#include "job_queue.h"

namespace tempora::addon {

class EngineObject;

struct AddonData {
  Napi::FunctionReference generation;
  Napi::FunctionReference live_batch;
  Napi::FunctionReference snapshot;
  std::unordered_set<EngineObject*> engines;
  std::shared_ptr<JobQueue> calls;  // noop's, made when it is first asked for
};

AddonData& addon_data(Napi::Env env);

}  // namespace tempora::addon
