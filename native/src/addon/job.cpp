#include "job.h"

#include <new>
#include <stdexcept>

namespace tempora::addon {

Napi::Value make_error(Napi::Env env, const char* code, const std::string& call, const std::string& message) {
  const Napi::Error error = Napi::Error::New(env, call + ": " + message);
  error.Set("code", Napi::String::New(env, code));
  return error.Value();
}

AnyJob::AnyJob(Napi::Env env, const char* call, std::shared_ptr<CancelFlag> cancel)
    : call_(call),
      deferred_(Napi::Promise::Deferred::New(env)),
      cancel_(cancel != nullptr ? std::move(cancel) : std::make_shared<CancelFlag>()) {}

void AnyJob::run() noexcept {
  ran_ = true;
  try {
    cancel_->check();
    work(*cancel_);
  } catch (const Cancelled& error) {
    code_ = code::kCancelled;
    message_ = error.what();
  } catch (const std::bad_alloc& error) {
    code_ = code::kOutOfMemory;
    message_ = error.what();
  } catch (const std::domain_error& error) {
    code_ = code::kNotFinite;
    message_ = error.what();
  } catch (const std::logic_error& error) {
    code_ = code::kInvalidArgument;
    message_ = error.what();
  } catch (const std::exception& error) {
    code_ = code::kFailed;
    message_ = error.what();
  } catch (...) {
    code_ = code::kFailed;
    message_ = "an unknown C++ exception";
  }
}

void AnyJob::settle(Napi::Env env) {
  if (!ran_) return reject(env, code::kDisposed, "the engine was disposed before this call began");
  if (code_ != nullptr) return reject(env, code_, message_);
  Napi::Value value;
  try {
    value = convert(env);
  } catch (const Napi::Error& error) {  // for example no memory for the typed array
    return deferred_.Reject(error.Value());
  }
  deferred_.Resolve(value);
}

void AnyJob::reject(Napi::Env env, const char* code, const std::string& message) {
  if (unobserved_) return deferred_.Resolve(env.Undefined());
  deferred_.Reject(make_error(env, code, call_, message));
}

}  // namespace tempora::addon
