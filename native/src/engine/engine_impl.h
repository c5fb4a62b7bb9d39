// What an Engine is made of. Only engine/*.cpp include this.
#pragma once

#include "adapters.h"
#include "decoder.h"
#include "engine.h"
#include "parameters.h"
#include "scoring.h"

namespace tempora {

class Engine::Impl {
 public:
  Impl(ModelShape model_shape, const EngineOptions& options);

  // Called after any change of the weights: generations that run end with an error.
  void weights_changed() { ++weights_version_; }
  std::uint64_t weights_version() const { return weights_version_; }
  ParameterSet& set_of(int adapter) { return adapter == kBase ? parameters : adapters.at(adapter).tensors; }
  // Runs a training call; what it throws leaves zero gradients behind.
  template <typename Work>
  auto train(Work work);

  ModelShape shape;
  std::unique_ptr<Backend> backend;
  Parameters parameters;
  Adapters adapters;
  Decoder decoder;
  Scoring scoring;

 private:
  std::uint64_t weights_version_ = 0;
};

template <typename Work>
auto Engine::Impl::train(Work work) {
  parameters.require_loaded();
  adapters.trained().require_loaded();
  if (adapters.trained().frozen()) {
    throw std::invalid_argument("quantised weights cannot be trained: activate an adapter");
  }
  const ManyOperations many(*backend, parameters.dtype());
  try {
    return work();
  } catch (...) {
    adapters.trained().zero_gradients();
    throw;
  }
}

}  // namespace tempora
