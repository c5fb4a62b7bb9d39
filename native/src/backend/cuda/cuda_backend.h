// The backend on NVIDIA GPUs: cuBLASLt for large matrix products, own kernels for the rest, one stream.
//
// Each group of operations has a .cu file named as its CPU twin; where tensor cores have kernels of their own (_tiles,
// hopper_), the plain ones are for types and sizes that those do not take. No kernel adds floats by atomics, so every
// sum has a fixed order (of whole numbers the order does not matter).
// All work is queued on one stream of device 0 (CUDA_VISIBLE_DEVICES chooses which that is), whichever thread asks.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "../backend.h"
#include "arrivals.h"
#include "cublaslt.h"
#include "hopper_product.h"
#include "host_staging.h"
#include "recording.h"
#include "split_sums.h"

namespace tempora {

struct DynamicMap;
namespace device {
struct NarrowNumbers;
}

class CudaBackend : public Backend {
 public:
  // Throws std::runtime_error with the reason when there is no usable device. The head computes that many bytes of f32
  // logits at a time; by default a share of the device's memory.
  explicit CudaBackend(std::optional<std::int64_t> head_chunk_bytes = std::nullopt);
  ~CudaBackend() override;

  std::string name() const override { return name_; }
  Budget budget() const override { return budget_; }

  Buffer allocate(std::size_t bytes, MemoryUse use) override;
  void release(void* data, std::size_t bytes, MemoryUse use) noexcept override;
  std::size_t used(MemoryUse use) const override;
  std::size_t peak() const override;
  std::size_t host_bytes() const override { return HostStaging::kBytes; }
  void copy_in(void* device, const void* host, std::size_t bytes) override;
  void copy_out(void* host, const void* device, std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void zero(void* device, std::size_t bytes) override;
  void cast(const Matrix& from, const Matrix& to) override;
  bool all_finite(const Matrix& x) override;
  void synchronize() override;
  std::unique_ptr<Arrival> copy_out_later(const void* device, std::size_t bytes) override;
  std::unique_ptr<Recording> record(std::function<void()> operations) override;
  std::int64_t recorded_rows(std::int64_t rows) const override;

  void matmul(const Matrix& a, const Matrix& b, const Matrix& c, MatmulOptions options) override;

  std::unique_ptr<Weight> make_weight(WeightFormat format, std::int64_t rows, std::int64_t cols) override;
  void product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) override;
  void residual_product(const Matrix& x, const WeightProduct& product, const Matrix& residual) override;
  void transposed_product(const Matrix& d_out, const Weight& weight, const Matrix& d_x, bool accumulate) override;
  void gradient_product(const Matrix& d_out, const Matrix& x, const Matrix& d_weight, bool accumulate) override;
  void row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) override;
  void row_products(const Matrix& x, const std::vector<WeightProduct>& products) override;
  void row_attention_inputs(const Matrix& x, const std::vector<const Weight*>& weights,
                            const AttentionInputs& inputs) override;
  void row_swiglu(const Matrix& x, const WeightProduct& gate, const WeightProduct& up, const Matrix& out) override;
  void row_product_norm(const Matrix& x, const Weight& weight, const Matrix& sum, const void* norm, float eps,
                        const Matrix& normed, float* rstd) override;

  void dropout(const Matrix& x, const Dropout& dropout, const Matrix& out) override;
  void dropout_backward(const Matrix& d_out, const Dropout& dropout, const Matrix& d_x) override;
  void scale(const Matrix& x, float factor) override;
  void narrow_product(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed, float factor,
                      const Matrix& narrow) override;
  void narrow_gradient(const Matrix& x, const Dropout& dropout, const Matrix& narrow, bool transposed,
                       const Matrix& gradient) override;
  bool adapter_rows(const Matrix& x, const Weight& a, float factor, const Weight& b, const Matrix& out) override;
  bool narrow_input_gradient(const Matrix& narrow, const Weight& weight, const Dropout& dropout,
                             const Matrix& d_x) override;

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

  void attention_inputs(const AttentionInputs& inputs) override;

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
  void write_cache(const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape,
                   void* key_cache, void* value_cache) override;
  std::unique_ptr<CachePlan> plan_cache(CachePaths paths) override;
  bool change_plan(std::unique_ptr<CachePlan>& plan, CachePaths paths) override;
  void cached_attention(const CachePlan& plan, const AttentionShape& shape, const Matrix& q, const void* key_cache,
                        const void* value_cache, const Matrix& out) override;
  void sample(const Matrix& logits, const SamplingOptions& options, const double* uniforms, std::int32_t* tokens,
              float* log_probs) override;
  void continue_tokens(const std::int32_t* sampled, const std::int32_t* from, std::int64_t count,
                       std::int32_t* tokens) override;

 private:
  // A host vector on the device, for as long as the buffer lives.
  template <typename T>
  Buffer upload(const std::vector<T>& host) {
    Buffer buffer = allocate(host.size() * sizeof(T) + 1, MemoryUse::workspace);
    if (!host.empty()) copy_in(buffer.data(), host.data(), host.size() * sizeof(T));
    return buffer;
  }

  void multiply(const Matrix& a, const Matrix& b, const Matrix& added, const Matrix& c, MatmulOptions options);
  template <typename L>
  void head_gradient(const Matrix& logits, const float* counted_from, const Edges& edges, std::int64_t begin,
                     std::int64_t vocabulary, const float* coefficient, const float* lse, const Matrix& d_logits);
  const DynamicMap* dynamic_maps();
  template <typename T, typename M>
  void step_tensors(const std::vector<AdamWTensor>& tensors, MomentsFormat format, const AdamWOptions& options);
  Buffer narrow_parts(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed,
                      const device::NarrowNumbers& n);
  // Whether widen() can: rows of whole pieces of 16 bytes, and no too large rank. That depends on no number of rows.
  static bool fits_widening(const Matrix& narrow, const Matrix& weight, const Matrix& out);
  void widen(const Matrix& narrow, const Matrix& weight, bool transposed, const Dropout& dropout, const Matrix& out,
             bool accumulate, int splits = 1, float factor = 1);
  SplitSums begin_row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate);
  std::vector<SplitSums> begin_row_products(const Matrix& x, const std::vector<WeightProduct>& products);
  void add_splits(const SplitSums& sums, const Matrix& out, bool accumulate);
  Matrix weight_numbers(const Weight& weight, DType dtype, Buffer& owner);
  [[noreturn]] void throw_out_of_memory(std::size_t bytes) const;

  std::string name_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<HostStaging> staging_;
  Arrivals arrivals_;
  RecordedMemory recorded_;
  std::unique_ptr<CublasLt> products_;
  std::unique_ptr<HopperProduct> hopper_;  // where the device has such instructions
  Budget budget_;
  std::int64_t head_chunk_bytes_ = 0;

  // Of what the pool of all engines gave. All work is on one stream, so a block may be reused before its kernels ended.
  mutable std::mutex memory_mutex_;
  std::size_t used_[kMemoryUses] = {};
  std::size_t peak_ = 0;
  Buffer product_workspace_;  // from the first product on
  Buffer dynamic_maps_;       // that of m, then that of v, from the first 8-bit step on
};

}  // namespace tempora
