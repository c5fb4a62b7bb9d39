#include "adapters.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "../forest/random.h"

namespace tempora {

Adapter::Adapter(Backend& backend, const Parameters& base, AdapterSpec spec)
    : tensors(backend, base.moments_format()),
      spec_(std::move(spec)),
      module_of_(static_cast<std::size_t>(base.count()), -1) {
  tensors.freeze(true);
  for (std::size_t i = 0; i < spec_.modules.size(); ++i) {
    const AdapterModule& module = spec_.modules[i];
    if (module.parameter < 0 || module.parameter >= base.count() || !base.adaptable(module.parameter)) {
      throw std::invalid_argument("an adapter names parameter " + std::to_string(module.parameter) +
                                  ", which is no matrix of a block");
    }
    if (module.rank < 1) throw std::invalid_argument("an adapter's rank is below 1");
    if (std::exchange(module_of_[static_cast<std::size_t>(module.parameter)], static_cast<int>(i)) != -1) {
      throw std::invalid_argument("an adapter names parameter " + std::to_string(module.parameter) + " twice");
    }
    const Weight& weight = base.weight(module.parameter);
    tensors.add(WeightFormat::f32, module.rank, weight.cols, true);
    tensors.add(WeightFormat::f32, weight.rows, module.rank, true);
  }
}

void AdapterRuns::add(std::int64_t rows, const Adapter* adapter) {
  const std::int64_t first = rows_;
  rows_ += rows;
  if (adapter == nullptr || rows == 0) return;
  if (!runs_.empty() && runs_.back().adapter == adapter && runs_.back().row + runs_.back().rows == first) {
    runs_.back().rows += rows;
  } else {
    runs_.push_back({first, rows, adapter});
  }
}

AdapterRuns AdapterRuns::from(std::int64_t first) const {
  AdapterRuns rest;
  rest.rows_ = rows_ - first;
  for (const AdapterRun& run : runs_) {
    const std::int64_t begin = std::max(run.row, first), end = run.row + run.rows;
    if (end > begin) rest.runs_.push_back({begin - first, end - begin, run.adapter});
  }
  return rest;
}

namespace {

// What a run's rows of x lose before A sees them: nothing but in the training of their adapter.
Dropout dropout_of(const AdapterPass& pass, const AdapterRun& run, int parameter) {
  if (run.adapter != pass.trained || run.adapter->spec().dropout <= 0) return {};
  return {run.adapter->spec().dropout, combine_key(pass.dropout_key, static_cast<std::uint64_t>(parameter)), run.row};
}

Matrix as_f32(Backend& backend, Arena& scratch, const Matrix& x) {
  if (x.dtype == DType::f32) return x;
  const Matrix wide = scratch.matrix(x.rows, x.cols, DType::f32);
  backend.dropout(x, {}, wide);
  return wide;
}

}  // namespace

void add_adapters(Backend& backend, Arena& scratch, const AdapterPass& pass, const Matrix& x, int parameter,
                  const Matrix& out, Products products) {
  for (const AdapterRun& run : pass.runs.list()) {
    const int module = run.adapter->module_of(parameter);
    if (module < 0) continue;
    const ArenaScope scope(scratch);
    const AdapterModule& spec = run.adapter->spec().modules[static_cast<std::size_t>(module)];
    const Weight &a = run.adapter->tensors.weight(Adapter::a(module)),
                 &b = run.adapter->tensors.weight(Adapter::b(module));
    const Matrix rows = x.row_range(run.row, run.rows), to = out.row_range(run.row, run.rows);
    if (products == Products::by_rows && backend.adapter_rows(rows, a, spec.scale, b, to)) continue;
    const Matrix u = scratch.matrix(run.rows, spec.rank, DType::f32);
    if (products == Products::by_rows) {
      backend.row_product(as_f32(backend, scratch, rows), a, u, false);
      backend.scale(u, spec.scale);
    } else {
      backend.narrow_product(rows, dropout_of(pass, run, parameter), a, false, spec.scale, u);
    }
    backend.row_product(u, b, to, true);
  }
}

namespace {

bool is_term(const Backend& backend, const AdapterPass& pass, const Matrix& x) {
  const std::vector<AdapterRun>& runs = pass.runs.list();
  return backend.takes_narrow_terms(x.dtype) && runs.size() == 1 && runs[0].rows == x.rows;
}

}  // namespace

NarrowTerm narrow_term(Backend& backend, Arena& scratch, const AdapterPass& pass, const Matrix& x, int parameter) {
  if (!is_term(backend, pass, x)) return {};
  const AdapterRun& run = pass.runs.list().front();
  const int module = run.adapter->module_of(parameter);
  if (module < 0) return {};
  const AdapterModule& spec = run.adapter->spec().modules[static_cast<std::size_t>(module)];
  const bool kept = pass.kept != nullptr && pass.kept->arena != nullptr && run.adapter == pass.trained;
  const Matrix u = (kept ? *pass.kept->arena : scratch).matrix(x.rows, spec.rank, DType::f32);
  backend.narrow_product(x, dropout_of(pass, run, parameter), run.adapter->tensors.weight(Adapter::a(module)), false,
                         spec.scale, u);
  if (kept) pass.kept->of_parameter[parameter] = u;
  return {u, &run.adapter->tensors.weight(Adapter::b(module))};
}

AdapterBackward::AdapterBackward(Backend& backend, Arena& scratch, const AdapterPass& pass, const Matrix& d_out,
                                 int parameter)
    : backend_(backend), scratch_(scratch), pass_(pass), parameter_(parameter), d_out_(d_out) {
  for (const AdapterRun& run : pass.runs.list()) {
    const int module = run.adapter->module_of(parameter);
    if (module < 0) continue;
    const AdapterModule& spec = run.adapter->spec().modules[static_cast<std::size_t>(module)];
    Part part{run, module, d_out.row_range(run.row, run.rows), scratch.matrix(run.rows, spec.rank, DType::f32)};
    backend.narrow_product(part.d_out, {}, run.adapter->tensors.weight(Adapter::b(module)), true, spec.scale, part.d_u);
    parts_.push_back(part);
  }
}

// Dropout takes its part of what comes back.
NarrowTerm AdapterBackward::input_term() const {
  if (parts_.empty() || !is_term(backend_, pass_, d_out_)) return {};
  const Part& part = parts_.front();
  if (dropout_of(pass_, part.run, parameter_).rate > 0) return {};
  return {part.d_u, &part.run.adapter->tensors.weight(Adapter::a(part.module))};
}

void AdapterBackward::add_input_gradient(const Matrix& d_x) const {
  for (const Part& part : parts_) {
    const ArenaScope scope(scratch_);
    const Weight& a = part.run.adapter->tensors.weight(Adapter::a(part.module));
    const Matrix rows = d_x.row_range(part.run.row, part.run.rows);
    const Dropout dropout = dropout_of(pass_, part.run, parameter_);
    if (backend_.narrow_input_gradient(part.d_u, a, dropout, rows)) continue;
    if (rows.dtype == DType::f32 && dropout.rate <= 0) {
      backend_.transposed_product(part.d_u, a, rows, true);
      continue;
    }
    const Matrix d_input = scratch_.matrix(part.run.rows, d_x.cols, DType::f32);
    backend_.transposed_product(part.d_u, a, d_input, false);
    backend_.dropout_backward(d_input, dropout, rows);
  }
}

void AdapterBackward::add_weight_gradients(const Matrix& x) const {
  for (const Part& part : parts_) {
    if (part.run.adapter != pass_.trained) continue;
    const ArenaScope scope(scratch_);
    const ParameterSet& tensors = part.run.adapter->tensors;
    const int a = Adapter::a(part.module), b = Adapter::b(part.module);
    const AdapterModule& spec = part.run.adapter->spec().modules[static_cast<std::size_t>(part.module)];
    const Matrix rows = x.row_range(part.run.row, part.run.rows);
    const Dropout dropout = dropout_of(pass_, part.run, parameter_);
    Matrix u;
    if (pass_.kept != nullptr && pass_.kept->of_parameter.contains(parameter_)) {
      u = pass_.kept->of_parameter.at(parameter_);
    } else {
      u = scratch_.matrix(part.run.rows, spec.rank, DType::f32);
      backend_.narrow_product(rows, dropout, tensors.weight(a), false, spec.scale, u);
    }
    backend_.narrow_gradient(part.d_out, {}, u, true, tensors.gradient(b));
    backend_.narrow_gradient(rows, dropout, part.d_u, false, tensors.gradient(a));
  }
}

int Adapters::add(AdapterSpec spec) {
  const int id = next_;
  adapters_.emplace(id, std::make_unique<Adapter>(backend_, base_, std::move(spec)));
  ++next_;
  return id;
}

Adapter& Adapters::at(int id) {
  const auto found = adapters_.find(id);
  if (found == adapters_.end()) throw std::invalid_argument("there is no adapter " + std::to_string(id));
  return *found->second;
}

void Adapters::remove(int id) {
  at(id);
  if (active_ == id) activate(kNone);
  if (merged_id_ == id) base_changed();
  adapters_.erase(id);
}

void Adapters::activate(int id) {
  if (id != kNone) {
    at(id).tensors.require_loaded();
    require_unmerged(id);
  }
  trained().freeze(true);
  active_ = id;
  trained().freeze(active_ == kNone && base_.quantised());
}

std::vector<const Adapter*> Adapters::of_trees(const std::vector<std::int32_t>& root_adapter, std::int32_t trees) {
  if (root_adapter.empty()) return std::vector<const Adapter*>(static_cast<std::size_t>(trees), find(active_));
  if (root_adapter.size() != static_cast<std::size_t>(trees)) {
    throw std::invalid_argument("a forest of " + std::to_string(trees) + " trees names " +
                                std::to_string(root_adapter.size()) + " adapters");
  }
  std::vector<const Adapter*> adapters;
  for (const std::int32_t id : root_adapter) adapters.push_back(usable(id));
  return adapters;
}

const Adapter* Adapters::usable(int id) {
  if (id == kNone) return nullptr;
  at(id).tensors.require_loaded();
  require_unmerged(id);
  return &at(id);
}

void Adapters::require_unmerged(int id) const {
  if (id == merged_id_) throw std::invalid_argument("a merged adapter cannot be used: its part is in the base already");
}

void Adapters::merge(int id) {
  const Adapter& adapter = at(id);
  adapter.tensors.require_loaded();
  if (merged_id_ != kNone) throw std::invalid_argument("another adapter is merged: unmerge it first");
  if (active_ == id) throw std::invalid_argument("an active adapter cannot be merged: activate none first");
  if (base_.quantised()) throw std::invalid_argument("an adapter cannot be merged into quantized weights");
  for (std::size_t i = 0; i < adapter.spec().modules.size(); ++i) {
    const AdapterModule& module = adapter.spec().modules[i];
    Weight& weight = base_.weight(module.parameter);
    Buffer own = backend_.allocate(weight.storage.bytes(), MemoryUse::weights);
    backend_.copy(own.data(), weight.storage.data(), weight.storage.bytes());
    merged_.push_back(std::move(own));
    add_product(adapter, static_cast<int>(i), weight);
  }
  merged_id_ = id;
}

// weight += scale · B · A, rounded once.
void Adapters::add_product(const Adapter& adapter, int module, Weight& weight) {
  const Matrix a = adapter.tensors.weight(Adapter::a(module)).values();
  const Matrix b = adapter.tensors.weight(Adapter::b(module)).values();
  const Buffer scaled = backend_.allocate(b.bytes(), MemoryUse::workspace);
  const Matrix scaled_b{scaled.data(), DType::f32, b.rows, b.cols};
  backend_.copy(scaled.data(), b.data, b.bytes());
  backend_.scale(scaled_b, adapter.spec().modules[static_cast<std::size_t>(module)].scale);
  const Matrix values = weight.values();
  if (values.dtype == DType::f32) {
    backend_.matmul(scaled_b, a, values, {.accumulate = true});
  } else {
    const Buffer exact = backend_.allocate(static_cast<std::size_t>(values.size()) * 4, MemoryUse::workspace);
    const Matrix sum{exact.data(), DType::f32, values.rows, values.cols};
    backend_.cast(values, sum);
    backend_.matmul(scaled_b, a, sum, {.accumulate = true});
    backend_.cast(sum, values);
  }
  weight.changed();
}

void Adapters::unmerge(int id) {
  if (merged_id_ != id || id == kNone) {
    throw std::invalid_argument("adapter " + std::to_string(id) + " is not merged, or the base changed since");
  }
  const Adapter& adapter = at(id);
  for (std::size_t i = 0; i < merged_.size(); ++i) {
    Weight& weight = base_.weight(adapter.spec().modules[i].parameter);
    backend_.copy(weight.storage.data(), merged_[i].data(), merged_[i].bytes());
    weight.changed();
  }
  base_changed();
}

void Adapters::base_changed() {
  merged_id_ = kNone;
  merged_.clear();
}

}  // namespace tempora
