// The face of the engine: one model on one device. Mirrors packages/engine/src/addon.ts.
// Not thread-safe: the addon runs one call at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "../forest/forest.h"
#include "adapter_spec.h"
#include "model_shape.h"
#include "preference_loss.h"

namespace tempora {

class Cancelled : public std::runtime_error {
 public:
  Cancelled() : std::runtime_error("cancelled") {}
};

// Set from any thread; looked at between blocks of layers. A cancelled training call leaves zero gradients behind.
class CancelFlag {
 public:
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void check() const {
    if (cancelled_.load(std::memory_order_relaxed)) throw Cancelled();
  }

 private:
  std::atomic<bool> cancelled_{false};
};

struct EngineOptions {
  bool cuda = false;
  DType dtype = DType::f32;
  int threads = 0;
  MomentsFormat moments = MomentsFormat::f32;
  // The matrices of the blocks in this format instead of dtype's: they are frozen, and only adapters can be trained.
  std::optional<WeightFormat> quantised;
  // Of these parameters, matrices of the blocks, in formats of their own: as a GGUF file holds them.
  std::map<int, WeightFormat> kept;
};

struct LogProbs {
  std::vector<float> token;  // [T] 0 where not scored
  std::vector<double> node;  // [N]
  // [T k] the most likely tokens in the place of each scored one, where they were asked for.
  std::vector<std::int32_t> likely_ids = {};
  std::vector<float> likely_log_probs = {};
};

struct PreferenceStep {
  Forest forest;
  std::vector<std::int32_t> pairs;  // [2 P] leaves: chosen, rejected
  std::vector<double> reference;    // [2 P]
  PreferenceLoss loss;
  double total_pairs = 1;
  double total_chosen_tokens = 1;
  bool checkpointing = false;
};

struct PreferenceResult {
  double loss = 0;
  std::vector<double> pair_losses;     // [P]
  std::vector<double> log_probs;       // [2 P]
  std::vector<std::int32_t> lengths;   // [2 P]
  std::vector<float> token_log_probs;  // [T]
};

struct OptimizerOptions {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool decay_all = false;
  double max_grad_norm = 0;
  std::uint64_t seed = 0;
};

struct GenerationOptions {
  SamplingOptions sampling;
  int max_new_tokens = 0;
  std::vector<std::int32_t> end_tokens;
  int max_rows = 0;
  std::int64_t max_cache_tokens = 0;
};

struct GenerationRequest {
  Forest forest;
  std::vector<std::int32_t> leaves;        // [R]
  std::vector<std::int32_t> samples;       // [R]
  std::vector<std::uint64_t> prompt_keys;  // [R]
  std::vector<std::uint64_t> seeds;        // [R]
  GenerationOptions options;
};

struct GenerationStep {
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
  std::vector<std::uint8_t> finished;  // 0 goes on, 1 end token, 2 length
  bool done = false;
};

// A prompt that joins a live batch.
struct LiveRequest {
  std::int64_t number = 0;  // by which steps name it
  std::vector<std::int32_t> prompt;
  std::int32_t adapter = -1;  // that it goes through, or Engine::kBase
  std::int32_t samples = 1;
  std::uint64_t prompt_key = 0;
  std::uint64_t seed = 0;
  SamplingOptions sampling;
  std::int32_t max_new_tokens = 0;
  std::vector<std::int32_t> end_tokens;
  std::int32_t likely = 0;  // how many of the most likely tokens are told beside each
};

struct LiveBatchOptions {
  std::int32_t max_rows = 0;
  std::int64_t max_cache_tokens = 0;
};

// A token of each row that got one.
struct LiveStep {
  std::vector<double> requests;  // numbers, as JavaScript has them
  std::vector<std::int32_t> samples;
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
  std::vector<std::uint8_t> finished;    // 0 goes on, 1 end token, 2 length
  std::vector<std::int32_t> likely_ids;  // those of a row that asks, row after row
  std::vector<float> likely_log_probs;
};

struct MemoryReport {
  std::size_t weights = 0, gradients = 0, optimizer = 0, workspace = 0, cache = 0, peak = 0;
  std::size_t host = 0;  // what of the machine's own memory all of it takes
};

class Engine;

// A running generation. It keeps what it needs of its engine alive. Changing the weights ends it: its next step throws.
class Generation {
 public:
  virtual ~Generation() = default;
  virtual GenerationStep step(int steps, const CancelFlag* cancel) = 0;
  virtual void finish_rows(const std::vector<std::int32_t>& rows) = 0;
};

// Completions that come and go while others run. It keeps what it needs of its engine alive, and what it has computed
// of prompts and completions for those that begin alike. Changing the weights ends it: its next step throws.
class LiveBatch {
 public:
  virtual ~LiveBatch() = default;
  // Throws std::invalid_argument for a request that can never run.
  virtual void add(LiveRequest request) = 0;
  // Ends a sample, or all where `sample` is -1; nothing where they have ended.
  virtual void end(std::int64_t number, std::int32_t sample) = 0;
  // One pass: at most one token for each row; none for those whose prompts are not computed yet.
  virtual LiveStep step(const CancelFlag* cancel) = 0;
};

class Snapshot {
 public:
  std::vector<Buffer> parameters;
  std::size_t bytes = 0;
};

class Engine {
 public:
  class Impl;  // what it is made of: engine_impl.h, for engine/*.cpp only

  Engine(ModelShape shape, EngineOptions options);
  ~Engine();

  // The parameters of the model, or of an adapter: A and B of each of its modules in turn.
  static constexpr int kBase = -1;
  int parameter_count(int adapter = kBase) const;
  std::size_t parameter_bytes(int index, int adapter = kBase) const;
  void set_parameter(int index, DType dtype, const std::uint8_t* bytes, std::size_t size, int adapter = kBase);
  // Of a parameter in NF4 or a GGUF format: its blocks.
  void set_parameter_blocks(int index, const std::uint8_t* blocks, std::size_t size);
  std::vector<std::uint8_t> get_parameter(int index, int adapter = kBase) const;
  std::vector<float> get_gradient(int index, int adapter = kBase) const;

  // LoRA. An adapter's tensors are to be set before it is used. While one is active, training calls and optimizer steps
  // are its own and the base is frozen; kBase activates none.
  int add_adapter(AdapterSpec spec);
  void remove_adapter(int adapter);
  void activate_adapter(int adapter);
  void merge_adapter(int adapter);
  void unmerge_adapter(int adapter);

  // `likely`: how many of the most likely tokens are told in the place of each scored one.
  LogProbs log_probs(const Forest& forest, int likely, const CancelFlag* cancel);
  PreferenceResult preference_step(const PreferenceStep& step, const CancelFlag* cancel);
  LogProbs accumulate(const Forest& forest, const std::vector<float>& coefficients, bool checkpointing,
                      const CancelFlag* cancel);
  std::vector<float> hidden_states(const Forest& forest, const std::vector<std::int32_t>& nodes,
                                   const CancelFlag* cancel);
  void zero_gradients();
  double optimizer_step(const OptimizerOptions& options);  // the gradient norm before clipping

  // Of what is trained: the active adapter, or the base.
  HostMoments get_optimizer_state(int index) const;
  void set_optimizer_state(int index, const HostMoments& moments);
  std::int64_t optimizer_steps() const;
  void set_optimizer_steps(std::int64_t steps);
  void reset_optimizer();

  std::unique_ptr<Snapshot> snapshot();
  void restore(const Snapshot& snapshot);
  std::unique_ptr<Generation> start_generation(GenerationRequest request);
  std::unique_ptr<LiveBatch> start_batch(LiveBatchOptions options);
  MemoryReport memory() const;

 private:
  std::shared_ptr<Impl> impl_;  // shared with running generations and batches
};

}  // namespace tempora
