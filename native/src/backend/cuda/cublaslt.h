// Matrix products by cuBLASLt, which is opened at run time: an addon built with CUDA loads without it and says what is
// missing when a device is asked for.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "../backend.h"

namespace tempora {

// Row-major c [m,n] = op(a) · op(b), or where it accumulates that + `added`, which lies as c does or is c. Row strides
// are in elements.
struct DeviceProduct {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t a_stride = 0, b_stride = 0, c_stride = 0;
  DType input = DType::f32;
  DType output = DType::f32;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  // Bytes that the pointers are aligned to, that of `added` as c's, a power of two: an algorithm may rely on it.
  std::uint32_t a_alignment = 16, b_alignment = 16, c_alignment = 16;

  auto key() const {
    return std::tie(m, n, k, a_stride, b_stride, c_stride, input, output, transpose_a, transpose_b, accumulate,
                    a_alignment, b_alignment, c_alignment);
  }
  bool operator<(const DeviceProduct& other) const { return key() < other.key(); }
};

class CublasLt {
 public:
  CublasLt();  // throws std::runtime_error naming the library that cannot be opened
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // Why the library cannot be opened, or empty.
  static std::string problem();

  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

  void run(const DeviceProduct& product, const void* a, const void* b, const void* added, void* c, void* workspace,
           cudaStream_t stream);

 private:
  struct Library;  // the entry points
  struct Plan;     // descriptors and the pinned algorithm of one shape

  Plan& plan_for(const DeviceProduct& product);
  std::unique_ptr<Plan> describe(const DeviceProduct& product);
  cublasLtMatmulAlgo_t best_algorithm(const DeviceProduct& product, const Plan& plan);
  std::optional<cublasLtMatmulAlgo_t> rounded_algorithm(const DeviceProduct& product, const Plan& plan);

  std::unique_ptr<Library> library_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<DeviceProduct, std::unique_ptr<Plan>> plans_;              // of the last shapes, kPlans at most
  std::map<DeviceProduct, cublasLtMatmulAlgo_t> rounded_algorithms_;  // of shapes with rounded numbers of tokens
};

}  // namespace tempora
