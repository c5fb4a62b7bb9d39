// The backend on CPUs: own kernels, oneDNN for large matrix products where there are none, OpenMP threads.
//
// Each group of operations has a file: memory, matmul, dropout, embedding, norm, bias, rope, swiglu, attention, rows,
// head, optimizer, weights, row_product, cached_attention, sampling. Inner loops are in kernels/, once per instruction
// set. "Device" memory is host memory; every operation is done when it returns.
#pragma once

#include "../backend.h"
#include "allocator.h"
#include "kernels/kernels.h"
#include "onednn.h"
#include "panel_order.h"
#include "thread_team.h"

namespace tempora {

// Cosines and sines of the positions met so far, for one set of frequencies.
struct RotaryTable {
  std::vector<float> frequencies;  // [C/2]
  std::int64_t positions = 0;
  Buffer values;  // f32 [positions, C]: cosines, then sines
};

struct KeptLogProbs;

class CpuBackend : public Backend {
 public:
  // threads 0: all cores. Throws std::invalid_argument where TEMPORA_CPU_KERNELS names what this CPU cannot run.
  explicit CpuBackend(int threads);

  std::string name() const override;
  int threads() const { return threads_; }
  Isa isa() const { return isa_; }

  Buffer allocate(std::size_t bytes, MemoryUse use) override;
  void release(void* data, std::size_t bytes, MemoryUse use) noexcept override;
  std::size_t used(MemoryUse use) const override;
  std::size_t peak() const override;
  void copy_in(void* device, const void* host, std::size_t bytes) override;
  void copy_out(void* host, const void* device, std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void zero(void* device, std::size_t bytes) override;
  void cast(const Matrix& from, const Matrix& to) override;
  bool all_finite(const Matrix& x) override;
  void synchronize() override {}
  void begin_many(std::optional<DType> large_products) override;
  void end_many() noexcept override;

  void matmul(const Matrix& a, const Matrix& b, const Matrix& c, MatmulOptions options) override;

  std::unique_ptr<Weight> make_weight(WeightFormat format, std::int64_t rows, std::int64_t cols) override;
  void product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) override;
  void transposed_product(const Matrix& d_out, const Weight& weight, const Matrix& d_x, bool accumulate) override;
  void gradient_product(const Matrix& d_out, const Matrix& x, const Matrix& d_weight, bool accumulate) override;
  void products(const Matrix& x, const std::vector<WeightProduct>& products) override;
  void residual_product(const Matrix& x, const WeightProduct& product, const Matrix& residual) override;
  void transposed_products(const std::vector<TransposedProduct>& products, const Matrix& d_x) override;
  void gradient_products(const Matrix& x, const std::vector<GradientProduct>& products) override;
  bool takes_narrow_terms(DType activations) const override;
  void row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) override;
  void row_products(const Matrix& x, const std::vector<WeightProduct>& products) override;
  void row_swiglu(const Matrix& x, const WeightProduct& gate, const WeightProduct& up, const Matrix& out) override;

  void dropout(const Matrix& x, const Dropout& dropout, const Matrix& out) override;
  void dropout_backward(const Matrix& d_out, const Dropout& dropout, const Matrix& d_x) override;
  void scale(const Matrix& x, float factor) override;
  void narrow_product(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed, float factor,
                      const Matrix& narrow) override;
  bool narrow_input_gradient(const Matrix& narrow, const Weight& weight, const Dropout& dropout,
                             const Matrix& d_x) override;
  void narrow_gradient(const Matrix& x, const Dropout& dropout, const Matrix& narrow, bool transposed,
                       const Matrix& gradient) override;

  void embed(const std::int32_t* tokens, const Weight& table, const Matrix& out) override;
  void embed_backward(const std::int32_t* tokens, const Matrix& d_out, const Matrix& d_table) override;

  void rms_norm(const Matrix& x, const void* weight, float eps, const Matrix& y, float* rstd) override;
  void rms_norm_backward(const Matrix& x, const void* weight, DType weight_dtype, const float* rstd, const Matrix& d_y,
                         const Matrix& d_x, float* d_weight) override;
  void recomputed_norm_backward(const RecomputedNorm& norm) override;
  void head_norm(const Matrix& x, int head_dim, const void* weight, float eps, const Matrix& y, float* rstd) override;
  void head_norm_backward(const Matrix& x, int head_dim, const void* weight, const float* rstd, const Matrix& d_y,
                          const Matrix& d_x, float* d_weight) override;

  void add_bias(const Matrix& x, const void* bias, DType bias_dtype) override;
  void bias_backward(const Matrix& d_y, float* d_bias) override;

  void rope(const Matrix& x, int head_dim, const std::int32_t* positions, const float* frequencies,
            bool inverse) override;

  void swiglu(const Matrix& gate, const Matrix& up, const Matrix& out) override;
  void swiglu_backward(const Matrix& gate, const Matrix& up, const Matrix& d_out, const Matrix& d_gate,
                       const Matrix& d_up, const Matrix& out) override;

  std::unique_ptr<AttentionPlan> plan_attention(const ForestLayout& layout) override;
  void tree_attention(const AttentionPlan& plan, const AttentionShape& shape, const Matrix& q, const Matrix& k,
                      const Matrix& v, const Matrix& out, float* lse) override;
  void tree_attention_backward(const AttentionPlan& plan, const AttentionShape& shape, const Matrix& q, const Matrix& k,
                               const Matrix& v, const Matrix& out, const float* lse, const Matrix& d_out,
                               const Matrix& d_q, const Matrix& d_k, const Matrix& d_v) override;

  void gather_rows(const Matrix& x, const std::int32_t* rows, const Matrix& out) override;
  void scatter_rows(const Matrix& part, const std::int32_t* rows, const Matrix& whole) override;

  std::size_t kept_logits_bytes(std::int64_t rows, std::int64_t vocabulary, DType dtype) const override;
  void head_forward(const Matrix& hidden, const Weight& weight, const Edges& edges, float* log_prob, float* lse,
                    const Matrix& keep) override;
  void head_backward(const Matrix& hidden, const Weight& weight, const Edges& edges, const float* coefficient,
                     const float* lse, const Matrix& kept, const Matrix& d_hidden, const Matrix& d_weight,
                     bool accumulate) override;

  double sum_of_squares(const std::vector<Matrix>& tensors) override;
  void adamw(const std::vector<AdamWTensor>& tensors, const AdamWOptions& options) override;

  std::size_t cache_bytes(int pages, const AttentionShape& shape, DType dtype) const override;
  void attention_inputs(const AttentionInputs& inputs) override;
  void write_cache(const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape,
                   void* key_cache, void* value_cache) override;
  std::unique_ptr<CachePlan> plan_cache(CachePaths paths) override;
  void cached_attention(const CachePlan& plan, const AttentionShape& shape, const Matrix& q, const void* key_cache,
                        const void* value_cache, const Matrix& out) override;
  void sample(const Matrix& logits, const SamplingOptions& options, const double* uniforms, std::int32_t* tokens,
              float* log_probs) override;
  void continue_tokens(const std::int32_t* sampled, const std::int32_t* from, std::int64_t count,
                       std::int32_t* tokens) override;

  // Working memory of one operation: `allocate` is cheap (blocks are cached), the buffer returns it at the end.
  Buffer workspace(std::size_t bytes) { return allocate(bytes, MemoryUse::workspace); }

 private:
  Matrix numbers_of(const Weight& weight, DType dtype, Buffer& owner);
  void add_transposed(const TransposedProduct& one, const Matrix& d_x, bool accumulate);
  void quantised_row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate);

  void head_rows(const Matrix& hidden, const Matrix& weight, const Edges& edges, float* log_prob, float* lse,
                 const KeptLogProbs& keep, float* kept_logits);

  // c (+)= op(a) · op(b) of strided matrices; bf16 is widened where the CPU has no instructions for it.
  void multiply(const Product& product, const void* a, const void* b, void* c);
  void widened_product(const Product& product, const void* a, const void* b, void* c);

  // The table for positions up to `largest`.
  const float* rotary_table(const float* frequencies, int half, std::int64_t largest);

  int threads_;
  Isa isa_;
  bool native_bf16_;  // whether oneDNN multiplies bf16 faster than f32
  Allocator allocator_;
  ProductCache products_;
  RotaryTable rotary_;
  PanelOrder panel_order_;
  std::unique_ptr<ThreadTeam> team_;  // made when it is first wanted
};

}  // namespace tempora
