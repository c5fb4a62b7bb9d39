// The operations that a model is made of. A backend knows no model; the engine knows no device.
//
// Shape letters, declared once: T tokens, D hidden size, F inner size, H query heads, G key/value heads, C head
// dimension, V vocabulary, R head rows, E scored edges, M rows of a decoding step, N/K output/input features.
//
// A = the activation type: f32 in an f32 engine, bf16 in a bf16 engine. The residual stream, its gradient, all
// statistics (rstd, lse), logits and parameter gradients are f32 always; sums are accumulated in f32 or f64.
// Every operation gives the same bits when it is run again with the same input on the same machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../forest/forest.h"
#include "attention_inputs.h"
#include "budget.h"
#include "cache_paths.h"
#include "devices.h"
#include "matrix.h"
#include "out_of_memory.h"
#include "products.h"
#include "recording.h"
#include "weight_format.h"

namespace tempora {

enum class MemoryUse : std::uint8_t { weights, gradients, optimizer, workspace, cache };
constexpr int kMemoryUses = 5;

class Backend;

// Device memory with one owner. Aligned to 64 bytes; its content is undefined until written.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Backend* backend, void* data, std::size_t bytes, MemoryUse use)
      : backend_(backend), data_(data), bytes_(bytes), use_(use) {}
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  MemoryUse use() const { return use_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  Backend* backend_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  MemoryUse use_ = MemoryUse::workspace;
};

// Of `size` numbers; rows of a GGUF format are whole blocks.
std::size_t weight_bytes(WeightFormat format, std::int64_t size);
int weight_block(WeightFormat format);  // the numbers of a block that a row holds whole; 1 where rows may end anywhere

constexpr WeightFormat format_of(DType dtype) { return dtype == DType::f32 ? WeightFormat::f32 : WeightFormat::bf16; }

// A model's weight: a matrix [N outputs, K inputs], or a vector as one row. `storage` holds the format's own bytes as
// checkpoints have them; what else a backend keeps to multiply by it (panels, tiles) is its own, made from them once,
// when first needed, and used by whoever multiplies.
class Weight {
 public:
  Weight(WeightFormat weight_format, std::int64_t row_count, std::int64_t col_count, Buffer bytes)
      : format(weight_format), rows(row_count), cols(col_count), storage(std::move(bytes)) {}
  virtual ~Weight() = default;
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;

  std::int64_t size() const { return rows * cols; }
  // The numbers of an f32 or bf16 weight. Whoever writes them calls changed() afterwards.
  Matrix values() const {
    if (!is_plain(format)) throw std::logic_error("a quantised weight has no numbers to be read or written in place");
    return {storage.data(), format == WeightFormat::f32 ? DType::f32 : DType::bf16, rows, cols};
  }
  // Drops what was made from the storage.
  virtual void changed() {}

  const WeightFormat format;
  const std::int64_t rows, cols;
  const Buffer storage;
};

// The way back through an RMSNorm of the residual stream whose result was not kept.
struct RecomputedNorm {
  Matrix x;            // f32 [T,D]
  const void* weight;  // A [D]
  float eps;
  float* rstd;  // as rms_norm gave it; it may be written again
  Matrix d_y;   // f32 [T,D]
  Matrix y;     // A [T,D], overwritten: what rms_norm gave
  // What rms_norm_backward adds to.
  Matrix d_x;  // f32 [T,D]
  float* d_weight;
  Matrix rounded;  // A [T,D], overwritten: the new d_x, unless its data is null
};

struct MatmulOptions {
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;  // c += instead of c =
};

// How AdamW's moments are stored: as they are, in bf16 (rounded stochastically, since most updates lie below its
// resolution), or in 8 bits as bitsandbytes stores them: codes of a dynamic map, with a scale for each block of 256.
enum class MomentsFormat : std::uint8_t { f32, bf16, blocks8 };

// Smaller ones are kept in f32 where 8 bits are asked for.
constexpr std::int64_t kSmallestBlocks8 = 4096;

// AdamW's m and v of one weight, n numbers each; moments.cpp says how they lie.
struct Moments {
  MomentsFormat format = MomentsFormat::f32;
  std::int64_t size = 0;  // n
  Buffer data;            // all of m, then all of v
  Buffer scales;          // f32, those of m, then those of v, where the format has them

  explicit operator bool() const { return static_cast<bool>(data); }
  std::size_t bytes() const { return data.bytes() + scales.bytes(); }
};

std::int64_t moments_blocks(const Moments& moments);  // 0 where the format has none

struct HostMoments {
  std::vector<float> first, second;                // [n]
  std::vector<float> first_scales, second_scales;  // [blocks]
};

// What tree attention precomputes for a forest, once for all layers. Made by plan_attention of the same backend.
class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
};

// Which head rows predict which tokens, edges sorted by row. Siblings share a row.
struct Edges {
  std::int64_t count = 0;                   // E
  const std::int32_t* token = nullptr;      // [E] device
  const std::int32_t* row_start = nullptr;  // [R + 1] device: edges of row r are [row_start[r], row_start[r+1])
};

// Which elements of a matrix [T,K] are dropped: (t, k) by the 16 bits number k % 4 of the word that `key`, first_row +
// t and k / 4 make, so that a part of the rows loses the elements that the whole does. Rates count in parts of 65536.
struct Dropout {
  float rate = 0;  // [0, 1); 0: nothing is dropped
  std::uint64_t key = 0;
  std::int64_t first_row = 0;

  std::uint32_t threshold() const { return static_cast<std::uint32_t>(rate * 65536.0f + 0.5f); }
  float scale() const { return 65536.0f / static_cast<float>(65536 - threshold()); }  // of what is kept
};

struct AdamWOptions {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double gradient_scale = 1;  // the clipping factor
  std::int64_t step = 1;      // 1-based, for bias correction
};

// One tensor of an AdamW step.
struct AdamWTensor {
  Matrix weight;    // f32 or bf16
  Matrix gradient;  // f32
  Moments* moments;
  double weight_decay = 0;
  // Stochastic rounding of bf16 weights: a counter-based stream keyed by this and the element.
  std::uint64_t rounding_key = 0;
};

struct SamplingOptions {
  float temperature = 1;  // 0: greedy (the lowest token id among equals)
  int top_k = 0;          // 0: off
  float top_p = 1;        // 1: off; the smallest set of most likely tokens whose mass reaches top_p

  bool operator==(const SamplingOptions&) const = default;
};

class Backend {
 public:
  virtual ~Backend() = default;
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  virtual std::string name() const = 0;
  virtual Budget budget() const { return {}; }

  // ---- memory. Throws std::bad_alloc-derived OutOfMemory naming what was asked.
  virtual Buffer allocate(std::size_t bytes, MemoryUse use) = 0;
  virtual void release(void* data, std::size_t bytes, MemoryUse use) noexcept = 0;
  virtual std::size_t used(MemoryUse use) const = 0;
  virtual std::size_t peak() const = 0;
  // What of it is the host's own memory, and what a backend for another device takes there.
  virtual std::size_t host_bytes() const;
  virtual void copy_in(void* device, const void* host, std::size_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, std::size_t bytes) = 0;
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;  // device to device
  virtual void zero(void* device, std::size_t bytes) = 0;
  virtual void cast(const Matrix& from, const Matrix& to) = 0;  // same size, round to nearest even
  virtual bool all_finite(const Matrix& x) = 0;
  virtual void synchronize() = 0;
  // A copy of what the operations so far leave there; those that follow do not wait for it.
  virtual std::unique_ptr<Arrival> copy_out_later(const void* device, std::size_t bytes);
  // `operations` ask for the same with the same arguments each time.
  virtual std::unique_ptr<Recording> record(std::function<void()> operations) {
    return std::make_unique<PlainRecording>(std::move(operations));
  }
  // How many rows a recorded pass has, so that one serves all passes of up to so many.
  virtual std::int64_t recorded_rows(std::int64_t rows) const { return rows; }
  // Between these the calling thread asks for many operations one after another: see ManyOperations.
  virtual void begin_many(std::optional<DType> /*large_products*/) {}
  virtual void end_many() noexcept {}

  // ---- matrix products: c[m,n] (+)= op(a) · op(b). a and b have one dtype; c has it too or is f32. Rows of all three
  // may lie apart.
  virtual void matmul(const Matrix& a, const Matrix& b, const Matrix& c, MatmulOptions options) = 0;

  // ---- weights [N,K], their content undefined until written. Activations have a plain weight's dtype; a quantised one
  // is dequantised to theirs. Rows of x, out and their gradients may lie apart.
  virtual std::unique_ptr<Weight> make_weight(WeightFormat format, std::int64_t rows, std::int64_t cols) = 0;
  // numbers [N·K] on the host; rounded or quantised (to NF4) to the weight's format, and back. False where one is not
  // finite: then the weight is of no use.
  bool set_weight(Weight& weight, DType dtype, const std::uint8_t* numbers);
  // Of a GGUF format the blocks as a file holds them, of NF4 its storage (nf4.h), on the host.
  bool set_weight_blocks(Weight& weight, const std::uint8_t* blocks);
  std::vector<std::uint8_t> get_weight(const Weight& weight, DType dtype);
  // out [T,N] (+)= x A [T,K] · weightᵀ; out is A or f32.
  virtual void product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) = 0;
  // d_x [T,K] (+)= d_out A [T,N] · weight; d_x is A or f32.
  virtual void transposed_product(const Matrix& d_out, const Weight& weight, const Matrix& d_x, bool accumulate) = 0;
  // d_weight f32 [N,K] (+)= d_outᵀ · x
  virtual void gradient_product(const Matrix& d_out, const Matrix& x, const Matrix& d_weight, bool accumulate) = 0;
  // The same of several at once, narrow terms added: out = x · weightᵀ of each;
  virtual void products(const Matrix& x, const std::vector<WeightProduct>& products);
  // out f32 [T,N] = residual + x · weightᵀ, both without gaps; the two may be one matrix;
  virtual void residual_product(const Matrix& x, const WeightProduct& product, const Matrix& residual);
  // d_x = the sum of d_out · weight of each, from the first to the last; of several d_x is f32;
  virtual void transposed_products(const std::vector<TransposedProduct>& products, const Matrix& d_x);
  // each d_weight (+)= d_outᵀ · x.
  virtual void gradient_products(const Matrix& x, const std::vector<GradientProduct>& products);
  // Whether these add narrow terms where they write, as far as shapes and formats allow it.
  virtual bool takes_narrow_terms(DType /*activations*/) const { return false; }
  // As product, row-stable: a row's result depends neither on how many rows there are nor on its place among them. The
  // result of an f32 weight may be bf16.
  virtual void row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) = 0;
  // out = x · weightᵀ of each as row_product gives it, to the bit: a backend may take them for one wide weight.
  virtual void row_products(const Matrix& x, const std::vector<WeightProduct>& products) {
    for (const WeightProduct& one : products) row_product(x, one.weight, one.out, false);
  }
  // What follows row products at once in a decoding step, to the bit of one operation after another. Products that are
  // only on the way (those of q, k and v where their heads are normed, gate and up) may stay unwritten.
  // The weights of q, k and v, then attention_inputs.
  virtual void row_attention_inputs(const Matrix& x, const std::vector<const Weight*>& weights,
                                    const AttentionInputs& inputs);
  virtual void row_swiglu(const Matrix& x, const WeightProduct& gate, const WeightProduct& up, const Matrix& out);
  // sum f32 += x · weightᵀ, then its rms_norm.
  virtual void row_product_norm(const Matrix& x, const Weight& weight, const Matrix& sum, const void* norm, float eps,
                                const Matrix& normed, float* rstd);

  // ---- beside the products of adapters, whose narrow side is f32. Rows may lie apart, but for scale.
  // out f32 [T,K] = x (A or f32) after dropout.
  virtual void dropout(const Matrix& x, const Dropout& dropout, const Matrix& out) = 0;
  // d_x (A or f32) += d_out f32 after the same dropout.
  virtual void dropout_backward(const Matrix& d_out, const Dropout& dropout, const Matrix& d_x) = 0;
  virtual void scale(const Matrix& x, float factor) = 0;  // x f32 *= factor
  // narrow f32 [T,r] = factor · dropout(x [T,K]) · weightᵀ [r,K] f32, or where `transposed` · weight [K,r].
  virtual void narrow_product(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed,
                              float factor, const Matrix& narrow);
  // gradient f32 [r,K] += narrowᵀ · dropout(x), or where `transposed` [K,r] its transpose.
  virtual void narrow_gradient(const Matrix& x, const Dropout& dropout, const Matrix& narrow, bool transposed,
                               const Matrix& gradient);
  // These two a backend may have in one pass over the wide side. Where they return false, nothing was done, and the
  // caller puts them together of row products and of transposed products; which it is depends on no number of rows.
  // out (A or f32) [T,N] += factor · (x (A or f32) [T,K] · aᵀ f32 [r,K]) · bᵀ f32 [N,r], row-stable.
  virtual bool adapter_rows(const Matrix& x, const Weight& a, float factor, const Weight& b, const Matrix& out);
  // d_x (A or f32) [T,K] += narrow f32 [T,r] · weight [r,K] f32, after the dropout that x had.
  virtual bool narrow_input_gradient(const Matrix& narrow, const Weight& weight, const Dropout& dropout,
                                     const Matrix& d_x);

  // ---- embedding: out f32 [T,D] = table[token]; backward adds into d_table f32 [V,D] in token order.
  virtual void embed(const std::int32_t* tokens, const Weight& table, const Matrix& out) = 0;
  virtual void embed_backward(const std::int32_t* tokens, const Matrix& d_out, const Matrix& d_table) = 0;

  // ---- RMSNorm: y A [T,D] = x · rstd · weight, rstd f32 [T] = 1/sqrt(mean(x²) + eps). x f32.
  virtual void rms_norm(const Matrix& x, const void* weight, float eps, const Matrix& y, float* rstd) = 0;
  // d_x f32 [T,D] += ..., d_weight f32 [D] += ... unless it is null; d_y f32. weight has dtype `weight_dtype`.
  virtual void rms_norm_backward(const Matrix& x, const void* weight, DType weight_dtype, const float* rstd,
                                 const Matrix& d_y, const Matrix& d_x, float* d_weight) = 0;
  // rms_norm, its backward pass and a cast of d_x at once, to the bit of one after another.
  virtual void recomputed_norm_backward(const RecomputedNorm& norm);

  // ---- RMSNorm of each head, for q and k of Qwen3: y A [T, heads·C] from x A of that shape; rstd f32 [T·heads].
  virtual void head_norm(const Matrix& x, int head_dim, const void* weight, float eps, const Matrix& y,
                         float* rstd) = 0;
  // d_x A (overwritten) may be d_y; d_weight f32 [C] += ... unless it is null.
  virtual void head_norm_backward(const Matrix& x, int head_dim, const void* weight, const float* rstd,
                                  const Matrix& d_y, const Matrix& d_x, float* d_weight) = 0;

  // ---- x A or f32 [T,N] += bias[N] (dtype A); d_bias f32 [N] += column sums of d_y (A or f32).
  virtual void add_bias(const Matrix& x, const void* bias, DType bias_dtype) = 0;
  virtual void bias_backward(const Matrix& d_y, float* d_bias) = 0;

  // ---- rotary embedding in place on x A [T, heads·C], rotating halves as Hugging Face does: dimension i pairs with
  // i + C/2. positions i32 [T], frequencies f32 [C/2]. inverse rotates back (the backward pass).
  virtual void rope(const Matrix& x, int head_dim, const std::int32_t* positions, const float* frequencies,
                    bool inverse) = 0;

  // ---- what add_bias, head_norm, rope and write_cache would do one after another, to the bit.
  virtual void attention_inputs(const AttentionInputs& inputs);
  void add_biases_and_norms(const AttentionInputs& inputs);  // the first of it

  // ---- SwiGLU: out A = silu(gate) · up. Backward overwrites d_gate and d_up (A), which may be the same memory as
  // gate and up; `out` is recomputed into it when its data is not null (the down projection's gradient needs it).
  virtual void swiglu(const Matrix& gate, const Matrix& up, const Matrix& out) = 0;
  virtual void swiglu_backward(const Matrix& gate, const Matrix& up, const Matrix& d_out, const Matrix& d_gate,
                               const Matrix& d_up, const Matrix& out) = 0;

  // ---- tree attention, scaled by 1/sqrt(C): a token sees its own node up to itself and all its ancestors, within
  // the window. q, out A [T, H·C]; k, v A [T, G·C]; lse f32 [T, H] = log Σ exp(scaled scores).
  virtual std::unique_ptr<AttentionPlan> plan_attention(const ForestLayout& layout) = 0;
  virtual void tree_attention(const AttentionPlan& plan, const AttentionShape& shape, const Matrix& q, const Matrix& k,
                              const Matrix& v, const Matrix& out, float* lse) = 0;
  // d_q, d_k, d_v A, overwritten. A prompt's d_k and d_v are summed over its branches in a fixed order, in f32.
  virtual void tree_attention_backward(const AttentionPlan& plan, const AttentionShape& shape, const Matrix& q,
                                       const Matrix& k, const Matrix& v, const Matrix& out, const float* lse,
                                       const Matrix& d_out, const Matrix& d_q, const Matrix& d_k,
                                       const Matrix& d_v) = 0;

  // ---- rows: out [R,D] = x[rows]; whole[rows] = part, 0 elsewhere (rows are distinct). Both matrices of one dtype.
  virtual void gather_rows(const Matrix& x, const std::int32_t* rows, const Matrix& out) = 0;
  virtual void scatter_rows(const Matrix& part, const std::int32_t* rows, const Matrix& whole) = 0;

  // ---- the log-prob head. hidden A [R,D], weight A [V,D]. log_prob f32 [E], lse f32 [R]. Vocabulary chunk by
  // vocabulary chunk: no [R,V] logits, unless `keep` (A or f32 [R,V], data not null, of kept_logits_bytes) asks for
  // them for the backward pass. How they lie in 16 bits, and what lies behind them, is the backend's own.
  virtual std::size_t kept_logits_bytes(std::int64_t rows, std::int64_t vocabulary, DType dtype) const {
    return static_cast<std::size_t>(rows * vocabulary) * size_of(dtype);
  }
  virtual void head_forward(const Matrix& hidden, const Weight& weight, const Edges& edges, float* log_prob, float* lse,
                            const Matrix& keep) = 0;
  // coefficient f32 [E] = dLoss/dlog_prob. d_hidden f32 [R,D] is overwritten, d_weight f32 [V,D] (+)= ... unless its
  // data is null. `kept` is what head_forward kept (and is destroyed), or has null data: then logits are computed
  // again.
  virtual void head_backward(const Matrix& hidden, const Weight& weight, const Edges& edges, const float* coefficient,
                             const float* lse, const Matrix& kept, const Matrix& d_hidden, const Matrix& d_weight,
                             bool accumulate) = 0;

  // ---- optimizer, over all tensors at once: a call each would cost a small one more than its work.
  // Σ x² of them all in f64, in a fixed order; they are of one dtype.
  virtual double sum_of_squares(const std::vector<Matrix>& tensors) = 0;
  // Moments of n elements, all 0; small ones may get another format than was asked for.
  Moments make_moments(MomentsFormat format, std::int64_t size);
  HostMoments get_moments(const Moments& moments);
  // What get_moments gave is restored bit for bit. Without scales, those that the numbers want.
  void set_moments(Moments& moments, const HostMoments& host);
  // AdamW with decoupled decay.
  virtual void adamw(const std::vector<AdamWTensor>& tensors, const AdamWOptions& options) = 0;

  // ---- generation, row-stable as row_product is.
  // Bytes of one layer's cache of keys (values the same): `pages` pages of kCachePage tokens of G·C elements A.
  virtual std::size_t cache_bytes(int pages, const AttentionShape& shape, DType dtype) const = 0;
  // k, v A [M, G·C] go to slots i32 [M]: page · kCachePage + offset.
  virtual void write_cache(const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape,
                           void* key_cache, void* value_cache) = 0;
  virtual std::unique_ptr<CachePlan> plan_cache(CachePaths paths) = 0;
  // Makes `plan`, null at first, that of other paths. True where recordings that use it see the new ones.
  virtual bool change_plan(std::unique_ptr<CachePlan>& plan, CachePaths paths) {
    plan = plan_cache(std::move(paths));
    return true;
  }
  virtual void cached_attention(const CachePlan& plan, const AttentionShape& shape, const Matrix& q,
                                const void* key_cache, const void* value_cache, const Matrix& out) = 0;
  // One token a row from logits f32 [M,V], by uniforms [M] in [0,1). log_probs [M]: log-softmax of the logits as they
  // are (temperature 1, nothing cut off) at the chosen token. A row whose logits are not finite gets token -1 and
  // log-prob 0.
  virtual void sample(const Matrix& logits, const SamplingOptions& options, const double* uniforms,
                      std::int32_t* tokens, float* log_probs) = 0;
  // tokens[i] = sampled[from[i]] for i < count where from[i] is not negative; 0 for a token of -1.
  virtual void continue_tokens(const std::int32_t* sampled, const std::int32_t* from, std::int64_t count,
                               std::int32_t* tokens) = 0;
};

// While it lives, threads of the backend stay awake between the operations that its thread asks for, where the backend
// has threads of its own for them: `large_products` is the type of products of many rows that are among them, if there
// are any. Not nested.
class ManyOperations {
 public:
  explicit ManyOperations(Backend& backend, std::optional<DType> large_products = {}) : backend_(backend) {
    backend.begin_many(large_products);
  }
  ~ManyOperations() { backend_.end_many(); }
  ManyOperations(const ManyOperations&) = delete;
  ManyOperations& operator=(const ManyOperations&) = delete;

 private:
  Backend& backend_;
};

inline std::size_t Backend::host_bytes() const {
  std::size_t bytes = 0;
  for (int use = 0; use < kMemoryUses; ++use) bytes += used(static_cast<MemoryUse>(use));
  return bytes;
}

inline Buffer::Buffer(Buffer&& other) noexcept
    : backend_(other.backend_), data_(other.data_), bytes_(other.bytes_), use_(other.use_) {
  other.data_ = nullptr;
  other.bytes_ = 0;
}

inline Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) backend_->release(data_, bytes_, use_);
    backend_ = other.backend_;
    data_ = other.data_;
    bytes_ = other.bytes_;
    use_ = other.use_;
    other.data_ = nullptr;
    other.bytes_ = 0;
  }
  return *this;
}

inline Buffer::~Buffer() {
  if (data_ != nullptr) backend_->release(data_, bytes_, use_);
}

}  // namespace tempora
