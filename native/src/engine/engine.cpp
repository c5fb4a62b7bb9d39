#include "engine.h"

#include <algorithm>
#include <stdexcept>

#include "engine_impl.h"

namespace tempora {

Engine::Impl::Impl(ModelShape model_shape, const EngineOptions& options)
    : shape(std::move(model_shape)),
      backend(options.cuda ? make_cuda_backend() : make_cpu_backend(options.threads)),
      parameters(*backend, shape, options.dtype, FrozenFormats{options.quantised, options.kept}, options.moments),
      adapters(*backend, parameters),
      decoder(*backend, shape, parameters, adapters),
      scoring(*backend, shape, parameters, decoder) {}

Engine::Engine(ModelShape shape, EngineOptions options) : impl_(std::make_shared<Impl>(std::move(shape), options)) {}
Engine::~Engine() = default;

int Engine::parameter_count(int adapter) const { return impl_->set_of(adapter).count(); }

std::size_t Engine::parameter_bytes(int index, int adapter) const {
  const DType dtype = adapter == kBase ? impl_->parameters.dtype() : DType::f32;
  return static_cast<std::size_t>(impl_->set_of(adapter).at(index).size()) * size_of(dtype);
}

void Engine::set_parameter(int index, DType dtype, const std::uint8_t* bytes, std::size_t size, int adapter) {
  Parameter& parameter = impl_->set_of(adapter).at(index);
  if (size != static_cast<std::size_t>(parameter.size()) * size_of(dtype)) {
    throw std::invalid_argument("parameter " + std::to_string(index) + " got " + std::to_string(size) + " bytes for " +
                                std::to_string(parameter.size()) + " elements");
  }
  impl_->weights_changed();
  if (adapter == kBase) impl_->adapters.base_changed();
  parameter.loaded = false;
  if (!impl_->backend->set_weight(*parameter.weight, dtype, bytes)) throw std::domain_error("not finite");
  parameter.loaded = true;
}

void Engine::set_parameter_blocks(int index, const std::uint8_t* blocks, std::size_t size) {
  Parameter& parameter = impl_->parameters.at(index);
  if (is_plain(parameter.weight->format) || size != parameter.weight->storage.bytes()) {
    throw std::invalid_argument("parameter " + std::to_string(index) + " got " + std::to_string(size) +
                                " bytes of blocks");
  }
  impl_->weights_changed();
  impl_->adapters.base_changed();
  parameter.loaded = false;
  if (!impl_->backend->set_weight_blocks(*parameter.weight, blocks)) throw std::domain_error("not finite");
  parameter.loaded = true;
}

std::vector<std::uint8_t> Engine::get_parameter(int index, int adapter) const {
  const Parameter& parameter = impl_->set_of(adapter).at(index);
  return impl_->backend->get_weight(*parameter.weight, adapter == kBase ? impl_->parameters.dtype() : DType::f32);
}

namespace {

LogProbs spread(const Forest& forest, const ScoredEdges& scored) {
  LogProbs result{std::vector<float>(forest.tokens.size()), std::vector<double>(forest.node_parent.size())};
  for (std::size_t e = 0; e < scored.log_prob.size(); ++e) result.token[scored.edges.target[e]] = scored.log_prob[e];
  for (std::size_t node = 0; node < result.node.size(); ++node) {
    for (std::int32_t i = forest.node_start[node]; i < forest.node_start[node + 1]; ++i) {
      result.node[node] += result.token[i];
    }
  }
  return result;
}

// A loss that somebody else differentiated: a coefficient for each token.
class GivenLoss : public ForestLoss {
 public:
  explicit GivenLoss(const std::vector<float>& d_token) : d_token_(d_token) {}

  void differentiate(const EdgeList& edges, std::int64_t begin, std::int64_t end, const std::vector<float>&,
                     std::vector<float>& coefficient) override {
    for (std::int64_t e = begin; e < end; ++e) coefficient[e] = d_token_[edges.target[e]];
  }

 private:
  const std::vector<float>& d_token_;  // [T]
};

}  // namespace

std::vector<float> Engine::get_gradient(int index, int adapter) const {
  const Matrix gradient = impl_->set_of(adapter).read_gradient(index);
  std::vector<float> values(static_cast<std::size_t>(gradient.size()), 0.0f);
  if (gradient.data != nullptr) impl_->backend->copy_out(values.data(), gradient.data, gradient.bytes());
  return values;
}

LogProbs Engine::log_probs(const Forest& forest, int likely, const CancelFlag* cancel) {
  impl_->parameters.require_loaded();
  const ManyOperations many(*impl_->backend, impl_->parameters.dtype());
  const ScoredEdges scored = impl_->scoring.log_probs(forest, likely, cancel);
  LogProbs result = spread(forest, scored);
  const auto k = static_cast<std::size_t>(likely);
  result.likely_ids.resize(forest.tokens.size() * k);
  result.likely_log_probs.resize(forest.tokens.size() * k);
  for (std::size_t e = 0; e < scored.edges.size(); ++e) {
    const std::size_t from = e * k, to = static_cast<std::size_t>(scored.edges.target[e]) * k;
    std::copy_n(scored.likely.ids.begin() + static_cast<std::ptrdiff_t>(from), k,
                result.likely_ids.begin() + static_cast<std::ptrdiff_t>(to));
    std::copy_n(scored.likely.log_probs.begin() + static_cast<std::ptrdiff_t>(from), k,
                result.likely_log_probs.begin() + static_cast<std::ptrdiff_t>(to));
  }
  return result;
}

LogProbs Engine::accumulate(const Forest& forest, const std::vector<float>& coefficients, bool checkpointing,
                            const CancelFlag* cancel) {
  return impl_->train([&] {
    GivenLoss loss(coefficients);
    return spread(forest, impl_->scoring.step(forest, kept_for(checkpointing), loss, cancel));
  });
}

std::vector<float> Engine::hidden_states(const Forest& forest, const std::vector<std::int32_t>& nodes,
                                         const CancelFlag* cancel) {
  impl_->parameters.require_loaded();
  const ManyOperations many(*impl_->backend, impl_->parameters.dtype());
  return impl_->scoring.hidden_states(forest, nodes, cancel);
}

void Engine::zero_gradients() { impl_->adapters.trained().zero_gradients(); }

int Engine::add_adapter(AdapterSpec spec) { return impl_->adapters.add(std::move(spec)); }

void Engine::remove_adapter(int adapter) {
  impl_->adapters.remove(adapter);
  impl_->weights_changed();
}

void Engine::activate_adapter(int adapter) { impl_->adapters.activate(adapter); }

void Engine::merge_adapter(int adapter) {
  impl_->parameters.require_loaded();
  impl_->adapters.merge(adapter);
  impl_->weights_changed();
}

void Engine::unmerge_adapter(int adapter) {
  impl_->adapters.unmerge(adapter);
  impl_->weights_changed();
}

HostMoments Engine::get_optimizer_state(int index) const {
  ParameterSet& trained = impl_->adapters.trained();
  if (trained.at(index).moments) return impl_->backend->get_moments(trained.at(index).moments);
  const auto size = static_cast<std::size_t>(trained.at(index).size());
  return {std::vector<float>(size), std::vector<float>(size), {}, {}};
}

void Engine::set_optimizer_state(int index, const HostMoments& moments) {
  ParameterSet& trained = impl_->adapters.trained();
  trained.ensure_moments();
  impl_->backend->set_moments(trained.at(index).moments, moments);
}

std::int64_t Engine::optimizer_steps() const { return impl_->adapters.trained().optimizer_steps; }
void Engine::set_optimizer_steps(std::int64_t steps) { impl_->adapters.trained().optimizer_steps = steps; }

void Engine::reset_optimizer() {
  impl_->adapters.trained().drop_training_state();
  impl_->decoder.release_memory();
}

std::unique_ptr<Snapshot> Engine::snapshot() {
  auto snapshot = std::make_unique<Snapshot>();
  for (int i = 0; i < impl_->parameters.count(); ++i) {
    const Buffer& weight = impl_->parameters.at(i).weight->storage;
    Buffer copy = impl_->backend->allocate(weight.bytes(), MemoryUse::weights);
    impl_->backend->copy(copy.data(), weight.data(), weight.bytes());
    snapshot->bytes += weight.bytes();
    snapshot->parameters.push_back(std::move(copy));
  }
  return snapshot;
}

void Engine::restore(const Snapshot& snapshot) {
  for (int i = 0; i < impl_->parameters.count(); ++i) {
    Parameter& parameter = impl_->parameters.at(i);
    const Buffer& copy = snapshot.parameters.at(static_cast<std::size_t>(i));
    const Buffer& storage = parameter.weight->storage;
    if (copy.bytes() != storage.bytes()) throw std::invalid_argument("the snapshot is another model's");
    impl_->backend->copy(storage.data(), copy.data(), copy.bytes());
    parameter.weight->changed();
    parameter.loaded = true;
  }
  impl_->adapters.base_changed();
  impl_->weights_changed();
}

MemoryReport Engine::memory() const {
  const Backend& b = *impl_->backend;
  return {b.used(MemoryUse::weights),
          b.used(MemoryUse::gradients),
          b.used(MemoryUse::optimizer),
          b.used(MemoryUse::workspace),
          b.used(MemoryUse::cache),
          b.peak(),
          b.host_bytes()};
}

}  // namespace tempora
