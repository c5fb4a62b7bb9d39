// LoRA adapters (Hu et al. 2021): beside a matrix W [N,K] of the base lie A [r,K] and B [N,r], and the product becomes
//   y = x · Wᵀ + scale · (x · Aᵀ) · Bᵀ.
// A, B and everything of width r are f32, whatever the base is. Which rows go through which adapter is a list of runs:
// the trees of a forest, or the rows of a decoding step.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "adapter_spec.h"
#include "arena.h"
#include "parameters.h"

namespace tempora {

class Adapter {
 public:
  // Throws std::invalid_argument for a module that the base does not have or has twice.
  Adapter(Backend& backend, const Parameters& base, AdapterSpec spec);

  const AdapterSpec& spec() const { return spec_; }
  // The module beside a parameter of the base, or -1.
  int module_of(int parameter) const { return module_of_[static_cast<std::size_t>(parameter)]; }
  static int a(int module) { return 2 * module; }
  static int b(int module) { return 2 * module + 1; }

  ParameterSet tensors;  // A and B of each module in turn

 private:
  AdapterSpec spec_;
  std::vector<int> module_of_;  // by the base's parameters
};

// Rows [row, row + rows) go through one adapter.
struct AdapterRun {
  std::int64_t row = 0, rows = 0;
  const Adapter* adapter = nullptr;

  bool operator==(const AdapterRun&) const = default;
};

// Runs of equal neighbours; rows without an adapter are in none.
class AdapterRuns {
 public:
  void add(std::int64_t rows, const Adapter* adapter);
  const std::vector<AdapterRun>& list() const { return runs_; }
  // Of the rows from `first` on, numbered from 0.
  AdapterRuns from(std::int64_t first) const;

 private:
  std::vector<AdapterRun> runs_;
  std::int64_t rows_ = 0;
};

// The narrow products of the trained adapter's inputs, by the base's parameters: from the forward pass to the way back,
// where there is an arena for them.
struct KeptNarrow {
  Arena* arena = nullptr;
  std::map<int, Matrix> of_parameter;
};

// What one pass over a batch does with its adapters.
struct AdapterPass {
  AdapterRuns runs;
  KeptNarrow* kept = nullptr;
  const Adapter* trained = nullptr;  // whose A and B get gradients, and whose input is dropped out
  std::uint64_t dropout_key = 0;     // of this training call
};

enum class Products { batch, by_rows };  // by_rows: row-stable

// out [T,N] += what the adapters add to the product of x [T,K] with a parameter of the base.
void add_adapters(Backend& backend, Arena& scratch, const AdapterPass& pass, const Matrix& x, int parameter,
                  const Matrix& out, Products products);

// What they add as a term that the product takes in, where all rows go through one and the backend does so; it lies in
// `scratch`, or is kept. Else nothing, and add_adapters is to follow the product.
NarrowTerm narrow_term(Backend& backend, Arena& scratch, const AdapterPass& pass, const Matrix& x, int parameter);

// The backward pass of add_adapters, in two parts: the gradient of x is wanted before x itself may be there again. The
// scratch memory it takes is the caller's to give back.
class AdapterBackward {
 public:
  AdapterBackward(Backend& backend, Arena& scratch, const AdapterPass& pass, const Matrix& d_out, int parameter);

  // What comes back to x: as a term of the product's own way back, as narrow_term says; or d_x [T,K] += ...
  NarrowTerm input_term() const;
  void add_input_gradient(const Matrix& d_x) const;
  void add_weight_gradients(const Matrix& x) const;  // of the trained adapter's A and B

 private:
  // One run's part.
  struct Part {
    AdapterRun run;
    int module;
    Matrix d_out;  // A or f32 [rows,N]
    Matrix d_u;    // f32 [rows,r] = scale · d_out · B
  };

  Backend& backend_;
  Arena& scratch_;
  const AdapterPass& pass_;
  int parameter_;
  Matrix d_out_;
  std::vector<Part> parts_;
};

// The adapters of an engine, by number. One of them may be active: it is trained instead of the base, and rows that
// name no adapter go through it.
class Adapters {
 public:
  static constexpr int kNone = -1;

  Adapters(Backend& backend, Parameters& base) : backend_(backend), base_(base) { base.freeze(base.quantised()); }

  int add(AdapterSpec spec);
  void remove(int id);  // an active one is active no more
  Adapter& at(int id);  // throws std::invalid_argument for an unknown one
  const Adapter* find(int id) { return id == kNone ? nullptr : &at(id); }
  // Throws std::invalid_argument for one that rows cannot go through: not loaded, or merged.
  const Adapter* usable(int id);
  void activate(int id);
  int active() const { return active_; }
  // What a training step changes: the active adapter's tensors, or the base.
  ParameterSet& trained() { return active_ == kNone ? base_ : at(active_).tensors; }
  // The adapter of each tree: as the forest's root_adapter says, or the active one.
  std::vector<const Adapter*> of_trees(const std::vector<std::int32_t>& root_adapter, std::int32_t trees);

  // The base becomes W + scale · B · A, rounded once, until unmerge() puts its own bits back. One at a time, not the
  // active one; rows cannot go through it meanwhile.
  void merge(int id);
  void unmerge(int id);
  // After the base's weights were written otherwise: what is merged stays in them.
  void base_changed();

 private:
  void require_unmerged(int id) const;
  void add_product(const Adapter& adapter, int module, Weight& weight);

  Backend& backend_;
  Parameters& base_;
  std::map<int, std::unique_ptr<Adapter>> adapters_;
  int next_ = 0;
  int active_ = kNone;
  int merged_id_ = kNone;
  std::vector<Buffer> merged_;  // the base's own weights, by module
};

}  // namespace tempora
