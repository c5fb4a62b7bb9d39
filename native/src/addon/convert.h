// JavaScript values to the engine's plain structs, and results back to typed arrays. Values were validated and worded
// in TypeScript; checked again here is only what memory safety hangs on: types, sizes and indices.
#pragma once

#include <napi.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace tempora::addon {

[[noreturn]] void throw_invalid(Napi::Env env, const std::string& message);

// Null for JavaScript's null.
std::shared_ptr<CancelFlag> cancel_flag_from(const Napi::Value& value);

template <typename T>
constexpr napi_typedarray_type kArrayType = napi_float64_array;
template <>
inline constexpr napi_typedarray_type kArrayType<float> = napi_float32_array;
template <>
inline constexpr napi_typedarray_type kArrayType<std::int32_t> = napi_int32_array;
template <>
inline constexpr napi_typedarray_type kArrayType<std::uint8_t> = napi_uint8_array;

template <typename T>
Napi::TypedArrayOf<T> typed_array_from(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != kArrayType<T>) {
    throw_invalid(value.Env(), std::string(name) + " is not a typed array of the right kind");
  }
  return value.As<Napi::TypedArrayOf<T>>();
}

template <typename T>
std::vector<T> vector_from(const Napi::Value& value, const char* name) {
  const auto array = typed_array_from<T>(value, name);
  const T* data = array.ElementLength() == 0 ? nullptr : array.Data();
  return {data, data + array.ElementLength()};
}

template <typename T>
Napi::TypedArrayOf<T> typed_array_of(Napi::Env env, const std::vector<T>& values) {
  auto array = Napi::TypedArrayOf<T>::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(T));
  return array;
}

// The same without a copy: JavaScript owns the numbers. For what may be gigabytes.
template <typename T>
Napi::TypedArrayOf<T> typed_array_of(Napi::Env env, std::vector<T>&& values) {
  if (values.empty()) return typed_array_of(env, std::as_const(values));
  auto* owned = new std::vector<T>(std::move(values));
  const auto buffer = Napi::ArrayBuffer::New(
      env, owned->data(), owned->size() * sizeof(T), [](Napi::Env, void*, std::vector<T>* data) { delete data; },
      owned);
  return Napi::TypedArrayOf<T>::New(env, owned->size(), buffer, 0);
}

double number_from(const Napi::Object& object, const char* name);
std::int32_t int_from(const Napi::Object& object, const char* name);
bool bool_from(const Napi::Object& object, const char* name);
Napi::Object object_from(const Napi::Value& value, const char* name);
DType dtype_from(const Napi::Value& value);

ModelShape model_shape_from(const Napi::Value& value);
EngineOptions engine_options_from(const Napi::Value& value);
// Well-formed (parents first, no empty node, ids inside the vocabulary) or thrown.
Forest forest_from(const Napi::Value& value, std::int32_t vocab_size);
std::vector<std::int32_t> nodes_from(const Napi::Value& value, const Forest& forest, const char* name);
PreferenceLoss preference_loss_from(const Napi::Value& value);
PreferenceSums preference_sums_from(const Napi::Value& value);
PreferenceStep preference_step_from(const Napi::Value& value, std::int32_t vocab_size);
HostMoments moments_from(const Napi::Value& value);
Napi::Value moments_to(Napi::Env env, HostMoments& moments);
AdapterSpec adapter_spec_from(const Napi::Value& value);
OptimizerOptions optimizer_options_from(const Napi::Value& value);
LiveRequest live_request_from(const Napi::Value& value, std::int32_t vocab_size);
LiveBatchOptions live_batch_options_from(const Napi::Value& value);
GenerationRequest generation_request_from(const Napi::Value& value, std::int32_t vocab_size);

Napi::Value log_probs_to(Napi::Env env, const LogProbs& result);
Napi::Value preference_result_to(Napi::Env env, const PreferenceResult& result);
Napi::Value loss_result_to(Napi::Env env, const LossResult& result);
Napi::Value live_step_to(Napi::Env env, const LiveStep& step);
Napi::Value generation_step_to(Napi::Env env, const GenerationStep& step);
Napi::Value memory_to(Napi::Env env, const MemoryReport& memory);

}  // namespace tempora::addon
