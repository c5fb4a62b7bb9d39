#include "handles.h"

#include <utility>

#include "convert.h"

namespace tempora::addon {
namespace {

// Told apart by these, so that a wrong object is an error and not a wild pointer.
constexpr napi_type_tag kCancelTag{0x5445'4d50'4f52'4131, 0x6361'6e63'656c'0001};
constexpr napi_type_tag kSnapshotTag{0x5445'4d50'4f52'4131, 0x736e'6170'7368'0001};

Napi::Object tagged_object(const Napi::Value& value, const napi_type_tag& tag, const char* name) {
  const Napi::Object object = object_from(value, name);
  if (!object.CheckTypeTag(&tag)) throw_invalid(value.Env(), std::string("this is no ") + name);
  return object;
}

}  // namespace

CancelObject::CancelObject(const Napi::CallbackInfo& info) : ObjectWrap(info), flag_(std::make_shared<CancelFlag>()) {
  info.This().As<Napi::Object>().TypeTag(&kCancelTag);
}

CancelObject& CancelObject::of(const Napi::Value& value) { return *Unwrap(tagged_object(value, kCancelTag, "Cancel")); }

Napi::Function CancelObject::define(Napi::Env env) {
  return DefineClass(env, "Cancel", {InstanceMethod<&CancelObject::cancel>("cancel")});
}

std::shared_ptr<CancelFlag> cancel_flag_from(const Napi::Value& value) {
  if (value.IsNull() || value.IsUndefined()) return nullptr;
  return CancelObject::of(value).flag();
}

OwnedByEngine OwnedByEngine::from(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsExternal()) throw_invalid(info.Env(), "made by an engine's methods only");
  return *info[0].As<Napi::External<OwnedByEngine>>().Data();
}

void OwnedByEngine::drop_in_order(Napi::Env env) const {
  if (queue->closed()) return;
  auto job = std::make_unique<Job<Nothing>>(
      env, "dispose", nullptr,
      [state = state, id = id](const CancelFlag&) {
        state->drop(id);
        state->note_memory();
        return Nothing{};
      },
      no_value);
  job->unobserved();
  queue->submit(env, std::move(job));
}

void OwnedByEngine::drop_now() const {
  queue->post([state = state, id = id] { state->drop(id); });
}

Napi::Function SnapshotObject::define(Napi::Env env) {
  return DefineClass(
      env, "Snapshot",
      {InstanceAccessor<&SnapshotObject::bytes>("bytes"), InstanceMethod<&SnapshotObject::dispose>("dispose")});
}

SnapshotObject::SnapshotObject(const Napi::CallbackInfo& info) : ObjectWrap(info), owned_(OwnedByEngine::from(info)) {
  info.This().As<Napi::Object>().TypeTag(&kSnapshotTag);
}

SnapshotObject& SnapshotObject::of(const Napi::Value& value) {
  return *Unwrap(tagged_object(value, kSnapshotTag, "Snapshot"));
}

SnapshotObject::~SnapshotObject() {
  if (!disposed_) owned_.drop_now();
}

Napi::Value SnapshotObject::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), disposed_ ? 0.0 : static_cast<double>(owned_.bytes));
}

void SnapshotObject::dispose(const Napi::CallbackInfo& info) {
  if (!std::exchange(disposed_, true)) owned_.drop_in_order(info.Env());
}

Napi::Function GenerationObject::define(Napi::Env env) {
  return DefineClass(
      env, "Generation",
      {InstanceMethod<&GenerationObject::step>("step"), InstanceMethod<&GenerationObject::finish_rows>("finishRows"),
       InstanceMethod<&GenerationObject::dispose>("dispose")});
}

GenerationObject::~GenerationObject() {
  if (!disposed_) owned_.drop_now();
}

Napi::Value GenerationObject::step(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsNumber()) throw_invalid(env, "steps is not a number");
  const int steps = info[0].As<Napi::Number>().Int32Value();
  std::shared_ptr<CancelFlag> cancel = cancel_flag_from(info[1]);
  if (cancel == nullptr) cancel = std::make_shared<CancelFlag>();
  last_step_ = cancel;
  auto job = std::make_unique<Job<GenerationStep>>(
      env, "generate", cancel,
      [state = owned_.state, id = owned_.id, steps, ended = std::exchange(to_finish_, {})](const CancelFlag& flag) {
        Generation& generation = state->generation(id);
        if (!ended.empty()) generation.finish_rows(ended);
        GenerationStep step = generation.step(steps, &flag);
        state->note_memory();
        return step;
      },
      [](Napi::Env to, GenerationStep& step) { return generation_step_to(to, step); });
  job->keep(info.This().As<Napi::Object>());
  return owned_.queue->submit(env, std::move(job));
}

void GenerationObject::finish_rows(const Napi::CallbackInfo& info) {
  const auto rows = vector_from<std::int32_t>(info[0], "rows");
  to_finish_.insert(to_finish_.end(), rows.begin(), rows.end());
}

void GenerationObject::dispose(const Napi::CallbackInfo& info) {
  if (std::exchange(disposed_, true)) return;
  if (const auto running = last_step_.lock()) running->cancel();
  owned_.drop_in_order(info.Env());
}

Napi::Function LiveBatchObject::define(Napi::Env env) {
  return DefineClass(
      env, "LiveBatch",
      {InstanceMethod<&LiveBatchObject::add>("add"), InstanceMethod<&LiveBatchObject::end>("end"),
       InstanceMethod<&LiveBatchObject::step>("step"), InstanceMethod<&LiveBatchObject::dispose>("dispose")});
}

LiveBatchObject::~LiveBatchObject() {
  if (!disposed_) owned_.drop_now();
}

void LiveBatchObject::add(const Napi::CallbackInfo& info) {
  LiveRequest request = live_request_from(info[0], vocabulary_);
  changes_.emplace_back([request = std::move(request)](LiveBatch& batch) { batch.add(request); });
}

void LiveBatchObject::end(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber() || !info[1].IsNumber()) throw_invalid(info.Env(), "request and sample are not numbers");
  const std::int64_t number = info[0].As<Napi::Number>().Int64Value();
  const std::int32_t sample = info[1].As<Napi::Number>().Int32Value();
  changes_.emplace_back([number, sample](LiveBatch& batch) { batch.end(number, sample); });
}

Napi::Value LiveBatchObject::step(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<CancelFlag> cancel = cancel_flag_from(info[0]);
  if (cancel == nullptr) cancel = std::make_shared<CancelFlag>();
  last_step_ = cancel;
  auto job = std::make_unique<Job<LiveStep>>(
      env, "batch", cancel,
      [state = owned_.state, id = owned_.id, changes = std::exchange(changes_, {})](const CancelFlag& flag) {
        LiveBatch& batch = state->batch(id);
        for (const auto& change : changes) change(batch);
        LiveStep step = batch.step(&flag);
        state->note_memory();
        return step;
      },
      [](Napi::Env to, LiveStep& step) { return live_step_to(to, step); });
  job->keep(info.This().As<Napi::Object>());
  return owned_.queue->submit(env, std::move(job));
}

void LiveBatchObject::dispose(const Napi::CallbackInfo& info) {
  if (std::exchange(disposed_, true)) return;
  if (const auto running = last_step_.lock()) running->cancel();
  owned_.drop_in_order(info.Env());
}

}  // namespace tempora::addon
