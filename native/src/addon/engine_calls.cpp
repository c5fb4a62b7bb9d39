// The methods of EngineObject that queue a job: arguments in, a promise out.
#include <string>

#include "addon.h"
#include "convert.h"
#include "engine_object.h"

namespace tempora::addon {
namespace {

const Napi::Value kNoCancel;

int index_from(const Napi::Value& value) {
  if (!value.IsNumber()) throw_invalid(value.Env(), "the parameter's index is not a number");
  return value.As<Napi::Number>().Int32Value();
}

// The adapter that a call is about; the base where it names none.
int adapter_from(const Napi::Value& value) {
  if (value.IsUndefined()) return Engine::kBase;
  if (!value.IsNumber()) throw_invalid(value.Env(), "the adapter is not a number");
  return value.As<Napi::Number>().Int32Value();
}

template <typename T>
Napi::Value array_to(Napi::Env env, std::vector<T>& values) {
  return typed_array_of(env, std::move(values));
}

// The JavaScript object of something that now lies on the engine's thread.
Napi::Value wrap_owned(const Napi::FunctionReference& constructor, Napi::Env env, OwnedByEngine owned) {
  return constructor.New({Napi::External<OwnedByEngine>::New(env, &owned)});
}

}  // namespace

template <typename Result, typename Work, typename Convert>
Napi::Value EngineObject::submit(const Napi::CallbackInfo& info, const char* call, const Napi::Value& cancel, Work work,
                                 Convert convert, const Napi::Object& kept) {
  auto job = std::make_unique<Job<Result>>(
      info.Env(), call, cancel.IsEmpty() ? nullptr : cancel_flag_from(cancel),
      [state = state_, work = std::move(work)](const CancelFlag& flag) mutable -> Result {
        // Memory is reported after failures, too.
        struct Note {
          EngineState& state;
          ~Note() { state.note_memory(); }
        } const note{*state};
        return work(*state, flag);
      },
      std::move(convert));
  job->keep(info.This().As<Napi::Object>());
  if (!kept.IsEmpty()) job->keep(kept);
  return queue_->submit(info.Env(), std::move(job));
}

Napi::Value EngineObject::ready(const Napi::CallbackInfo& info) {
  return submit<Nothing>(
      info, "Engine", kNoCancel,
      [shape = shape_, options = options_](EngineState& state, const CancelFlag&) {
        state.open(shape, options);
        return Nothing{};
      },
      no_value);
}

Napi::Value EngineObject::set_parameter(const Napi::CallbackInfo& info) {
  const int index = index_from(info[0]);
  const bool blocks = info[1].IsString() && info[1].As<Napi::String>().Utf8Value() == "blocks";
  const DType dtype = blocks ? DType::f32 : dtype_from(info[1]);
  const auto array = typed_array_from<std::uint8_t>(info[2], "bytes");
  // Not copied: a parameter may be half a gigabyte. The job keeps the array alive, the caller leaves it alone.
  const std::uint8_t* bytes = array.Data();
  const std::size_t size = array.ElementLength();
  const int adapter = adapter_from(info[3]);
  return submit<Nothing>(
      info, "setParameter", kNoCancel,
      [index, blocks, dtype, bytes, size, adapter](EngineState& state, const CancelFlag&) {
        if (blocks) {
          state.engine().set_parameter_blocks(index, bytes, size);
        } else {
          state.engine().set_parameter(index, dtype, bytes, size, adapter);
        }
        return Nothing{};
      },
      no_value, array);
}

Napi::Value EngineObject::get_parameter(const Napi::CallbackInfo& info) {
  const int index = index_from(info[0]);
  const int adapter = adapter_from(info[1]);
  return submit<std::vector<std::uint8_t>>(
      info, "getParameter", kNoCancel,
      [index, adapter](EngineState& state, const CancelFlag&) { return state.engine().get_parameter(index, adapter); },
      array_to<std::uint8_t>);
}

Napi::Value EngineObject::get_gradient(const Napi::CallbackInfo& info) {
  const int index = index_from(info[0]);
  const int adapter = adapter_from(info[1]);
  return submit<std::vector<float>>(
      info, "getGradient", kNoCancel,
      [index, adapter](EngineState& state, const CancelFlag&) { return state.engine().get_gradient(index, adapter); },
      array_to<float>);
}

Napi::Value EngineObject::add_adapter(const Napi::CallbackInfo& info) {
  AdapterSpec spec = adapter_spec_from(info[0]);
  return submit<int>(
      info, "addAdapter", kNoCancel,
      [spec = std::move(spec)](EngineState& state, const CancelFlag&) { return state.engine().add_adapter(spec); },
      [](Napi::Env env, int adapter) { return Napi::Number::New(env, adapter); });
}

template <void (Engine::*change)(int)>
Napi::Value EngineObject::change_adapter(const Napi::CallbackInfo& info, const char* call) {
  const int adapter = adapter_from(info[0]);
  return submit<Nothing>(
      info, call, kNoCancel,
      [adapter](EngineState& state, const CancelFlag&) {
        (state.engine().*change)(adapter);
        return Nothing{};
      },
      no_value);
}

Napi::Value EngineObject::remove_adapter(const Napi::CallbackInfo& info) {
  return change_adapter<&Engine::remove_adapter>(info, "removeAdapter");
}

Napi::Value EngineObject::activate_adapter(const Napi::CallbackInfo& info) {
  return change_adapter<&Engine::activate_adapter>(info, "activateAdapter");
}

Napi::Value EngineObject::merge_adapter(const Napi::CallbackInfo& info) {
  return change_adapter<&Engine::merge_adapter>(info, "mergeAdapter");
}

Napi::Value EngineObject::unmerge_adapter(const Napi::CallbackInfo& info) {
  return change_adapter<&Engine::unmerge_adapter>(info, "unmergeAdapter");
}

Napi::Value EngineObject::log_probs(const Napi::CallbackInfo& info) {
  Forest forest = forest_from(info[0], shape_.vocab_size);
  if (!info[1].IsNumber()) throw_invalid(info.Env(), "top is not a number");
  const std::int32_t likely = info[1].As<Napi::Number>().Int32Value();
  if (likely < 0 || likely > shape_.vocab_size) throw_invalid(info.Env(), "top is out of range");
  return submit<LogProbs>(
      info, "logProbs", info[2],
      [forest = std::move(forest), likely](EngineState& state, const CancelFlag& cancel) {
        return state.engine().log_probs(forest, likely, &cancel);
      },
      log_probs_to);
}

Napi::Value EngineObject::preference_step(const Napi::CallbackInfo& info) {
  PreferenceStep step = preference_step_from(info[0], shape_.vocab_size);
  return submit<PreferenceResult>(
      info, "preferenceStep", info[1],
      [step = std::move(step)](EngineState& state, const CancelFlag& cancel) {
        return state.engine().preference_step(step, &cancel);
      },
      preference_result_to);
}

Napi::Value EngineObject::accumulate(const Napi::CallbackInfo& info) {
  Forest forest = forest_from(info[0], shape_.vocab_size);
  auto coefficients = vector_from<float>(info[1], "coefficients");
  if (coefficients.size() != forest.tokens.size()) throw_invalid(info.Env(), "coefficients need one entry a token");
  if (!info[2].IsBoolean()) throw_invalid(info.Env(), "checkpointing is not a boolean");
  const bool checkpointing = info[2].As<Napi::Boolean>().Value();
  return submit<LogProbs>(
      info, "accumulate", info[3],
      [forest = std::move(forest), coefficients = std::move(coefficients), checkpointing](EngineState& state,
                                                                                          const CancelFlag& cancel) {
        return state.engine().accumulate(forest, coefficients, checkpointing, &cancel);
      },
      log_probs_to);
}

Napi::Value EngineObject::hidden_states(const Napi::CallbackInfo& info) {
  Forest forest = forest_from(info[0], shape_.vocab_size);
  auto nodes = nodes_from(info[1], forest, "nodes");
  return submit<std::vector<float>>(
      info, "hiddenStates", info[2],
      [forest = std::move(forest), nodes = std::move(nodes)](EngineState& state, const CancelFlag& cancel) {
        return state.engine().hidden_states(forest, nodes, &cancel);
      },
      array_to<float>);
}

Napi::Value EngineObject::zero_gradients(const Napi::CallbackInfo& info) {
  return submit<Nothing>(
      info, "zeroGradients", kNoCancel,
      [](EngineState& state, const CancelFlag&) {
        state.engine().zero_gradients();
        return Nothing{};
      },
      no_value);
}

Napi::Value EngineObject::optimizer_step(const Napi::CallbackInfo& info) {
  const OptimizerOptions options = optimizer_options_from(info[0]);
  return submit<double>(
      info, "optimizerStep", kNoCancel,
      [options](EngineState& state, const CancelFlag&) { return state.engine().optimizer_step(options); },
      [](Napi::Env env, double norm) {
        const auto object = Napi::Object::New(env);
        object.Set("gradNorm", norm);
        return object;
      });
}

Napi::Value EngineObject::get_optimizer_state(const Napi::CallbackInfo& info) {
  const int index = index_from(info[0]);
  return submit<HostMoments>(
      info, "getOptimizerState", kNoCancel,
      [index](EngineState& state, const CancelFlag&) { return state.engine().get_optimizer_state(index); }, moments_to);
}

Napi::Value EngineObject::set_optimizer_state(const Napi::CallbackInfo& info) {
  const int index = index_from(info[0]);
  return submit<Nothing>(
      info, "setOptimizerState", kNoCancel,
      [index, moments = moments_from(info[1])](EngineState& state, const CancelFlag&) {
        state.engine().set_optimizer_state(index, moments);
        return Nothing{};
      },
      no_value);
}

Napi::Value EngineObject::set_optimizer_steps(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber()) throw_invalid(info.Env(), "steps is not a number");
  const std::int64_t steps = info[0].As<Napi::Number>().Int64Value();
  return submit<Nothing>(
      info, "setOptimizerSteps", kNoCancel,
      [steps](EngineState& state, const CancelFlag&) {
        state.engine().set_optimizer_steps(steps);
        return Nothing{};
      },
      no_value);
}

Napi::Value EngineObject::reset_optimizer(const Napi::CallbackInfo& info) {
  return submit<Nothing>(
      info, "resetOptimizer", kNoCancel,
      [](EngineState& state, const CancelFlag&) {
        state.engine().reset_optimizer();
        return Nothing{};
      },
      no_value);
}

Napi::Value EngineObject::snapshot(const Napi::CallbackInfo& info) {
  using Made = std::pair<std::uint64_t, std::size_t>;  // number, bytes
  return submit<Made>(
      info, "snapshot", kNoCancel,
      [](EngineState& state, const CancelFlag&) {
        auto snapshot = state.engine().snapshot();
        const std::size_t bytes = snapshot->bytes;
        return Made{state.add(std::move(snapshot)), bytes};
      },
      [queue = queue_, state = state_](Napi::Env env, const Made& made) {
        return wrap_owned(addon_data(env).snapshot, env, {queue, state, made.first, made.second});
      });
}

Napi::Value EngineObject::restore(const Napi::CallbackInfo& info) {
  const SnapshotObject& snapshot = SnapshotObject::of(info[0]);
  if (!snapshot.belongs_to(*state_)) throw_invalid(info.Env(), "the snapshot was taken of another engine");
  return submit<Nothing>(
      info, "restore", kNoCancel,
      [id = snapshot.id()](EngineState& state, const CancelFlag&) {
        state.engine().restore(state.snapshot(id));
        return Nothing{};
      },
      no_value, info[0].As<Napi::Object>());
}

Napi::Value EngineObject::start_generation(const Napi::CallbackInfo& info) {
  GenerationRequest request = generation_request_from(info[0], shape_.vocab_size);
  return submit<std::uint64_t>(
      info, "generate", info[1],
      [request = std::move(request)](EngineState& state, const CancelFlag&) {
        return state.add(state.engine().start_generation(request));
      },
      [queue = queue_, state = state_](Napi::Env env, std::uint64_t id) {
        return wrap_owned(addon_data(env).generation, env, {queue, state, id, 0});
      });
}

Napi::Value EngineObject::start_batch(const Napi::CallbackInfo& info) {
  const LiveBatchOptions options = live_batch_options_from(info[0]);
  return submit<std::uint64_t>(
      info, "batch", info[1],
      [options](EngineState& state, const CancelFlag&) { return state.add(state.engine().start_batch(options)); },
      [queue = queue_, state = state_, vocabulary = shape_.vocab_size](Napi::Env env, std::uint64_t id) {
        const Napi::Object batch =
            wrap_owned(addon_data(env).live_batch, env, {queue, state, id, 0}).As<Napi::Object>();
        LiveBatchObject::Unwrap(batch)->set_vocabulary(vocabulary);
        return batch;
      });
}

Napi::Value EngineObject::optimizer_steps(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(state_->optimizer_steps()));
}

Napi::Value EngineObject::memory(const Napi::CallbackInfo& info) { return memory_to(info.Env(), state_->report()); }

}  // namespace tempora::addon
