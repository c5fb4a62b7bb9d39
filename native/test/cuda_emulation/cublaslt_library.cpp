// libcublasLt.so.0: D = alpha · op(A) · op(B) + beta · C of column-major matrices, as cuBLASLt defines it. What a real
// one would refuse, it refuses: shapes that do not fit, pointers less aligned than was promised, a workspace too small.
#include <memory>

#include "cublasLt.h"
#include "cuda_bf16.h"

struct cublasLtMatmulDescOpaque_t {
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType_t type;
  std::int64_t rows, cols, ld;
};
struct cublasLtMatmulPreferenceOpaque_t {
  cublasLtMatmulAlgo_t wanted{256, 256, 256, 256, 0, 0, 0};
  bool in_any_order = true;
};

namespace {

using Layout = cublasLtMatrixLayoutOpaque_t;

float element(const void* data, const Layout& layout, std::int64_t row, std::int64_t col) {
  const std::int64_t at = col * layout.ld + row;
  if (layout.type == CUDA_R_32F) return static_cast<const float*>(data)[at];
  return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[at]);
}

void set_element(void* data, const Layout& layout, std::int64_t row, std::int64_t col, float value) {
  const std::int64_t at = col * layout.ld + row;
  if (layout.type == CUDA_R_32F) {
    static_cast<float*>(data)[at] = value;
  } else {
    static_cast<__nv_bfloat16*>(data)[at] = __float2bfloat16_rn(value);
  }
}

bool aligned(const void* data, std::uint64_t bytes) { return reinterpret_cast<std::uintptr_t>(data) % bytes == 0; }

template <typename Opaque>
cublasStatus_t destroy(Opaque* opaque) {
  const std::unique_ptr<Opaque> owner(opaque);
  return CUBLAS_STATUS_SUCCESS;
}

struct Shape {
  std::int64_t m, n, k;
};

// k < 0 where the operands do not fit each other.
Shape shape_of(const cublasLtMatmulDescOpaque_t& desc, const Layout& a, const Layout& b, const Layout& d) {
  const bool ta = desc.transpose_a == CUBLAS_OP_T, tb = desc.transpose_b == CUBLAS_OP_T;
  const Shape shape{ta ? a.cols : a.rows, tb ? b.rows : b.cols, ta ? a.rows : a.cols};
  const bool fits = (tb ? b.cols : b.rows) == shape.k && d.rows == shape.m && d.cols == shape.n && a.type == b.type &&
                    (d.type == a.type || d.type == CUDA_R_32F);
  return fits ? shape : Shape{shape.m, shape.n, -1};
}

bool serves(const cublasLtMatmulAlgo_t& algorithm, const Shape& shape) {
  return shape.k >= 0 && (shape.k % 2 == 0 || shape.k == algorithm.k) && (shape.n % 2 == 0 || shape.n == algorithm.n);
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static int something;
  *handle = &something;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t, cudaDataType_t scale) {
  *desc = std::make_unique<cublasLtMatmulDescOpaque_t>().release();
  return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  cublasOperation_t& target = attribute == CUBLASLT_MATMUL_DESC_TRANSA ? desc->transpose_a : desc->transpose_b;
  std::memcpy(&target, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, std::uint64_t rows,
                                          std::uint64_t cols, std::int64_t ld) {
  const auto height = static_cast<std::int64_t>(rows);
  if (ld < height) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = std::make_unique<Layout>(Layout{type, height, static_cast<std::int64_t>(cols), ld}).release();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = std::make_unique<cublasLtMatmulPreferenceOpaque_t>().release();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    if (bytes != sizeof(std::uint64_t)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&preference->wanted.workspace, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  std::uint32_t number;
  if (bytes != sizeof number) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&number, value, bytes);
  cublasLtMatmulAlgo_t& wanted = preference->wanted;
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) {
    preference->in_any_order = (number & CUBLASLT_REDUCTION_SCHEME_INPLACE) != 0;
  }
  if (attribute == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) wanted.a_alignment = number;
  if (attribute == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES) wanted.b_alignment = number;
  if (attribute == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES) wanted.c_alignment = number;
  if (attribute == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES) wanted.d_alignment = number;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t results[], int* found) {
  // Sums of parts that come in any order would not repeat: who does not forbid them is not served here.
  *found = requested > 0 && !preference->in_any_order && shape_of(*desc, *a, *b, *d).k >= 0 ? 1 : 0;
  results[0].algo = preference->wanted;
  results[0].algo.k = shape_of(*desc, *a, *b, *d).k;
  results[0].algo.n = shape_of(*desc, *a, *b, *d).n;
  results[0].workspaceSize = preference->wanted.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

// An algorithm computes other shapes too, but not every one: here none with an odd sum
// or an odd number of (row-major) rows, unless it was made for them.
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result) {
  result->algo = *algorithm;
  result->workspaceSize = algorithm->workspace;
  result->state = serves(*algorithm, shape_of(*desc, *a, *b, *d)) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  return result->state;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  const Shape shape = shape_of(*desc, *a_layout, *b_layout, *d_layout);
  if (!serves(*algorithm, shape) || workspace == nullptr || workspace_bytes < algorithm->workspace ||
      !aligned(a, algorithm->a_alignment) || !aligned(b, algorithm->b_alignment) ||
      !aligned(c, algorithm->c_alignment) || !aligned(d, algorithm->d_alignment)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const float by = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  const bool ta = desc->transpose_a == CUBLAS_OP_T, tb = desc->transpose_b == CUBLAS_OP_T;
  stream->add([=, la = *a_layout, lb = *b_layout, lc = *c_layout, ld = *d_layout] {
    for (std::int64_t j = 0; j < shape.n; ++j) {
      for (std::int64_t i = 0; i < shape.m; ++i) {
        float sum = 0;
        for (std::int64_t k = 0; k < shape.k; ++k) {
          sum +=
              (ta ? element(a, la, k, i) : element(a, la, i, k)) * (tb ? element(b, lb, j, k) : element(b, lb, k, j));
        }
        set_element(d, ld, i, j, by * sum + (keep == 0 ? 0 : keep * element(c, lc, i, j)));
      }
    }
    // The workspace is somebody else's afterwards.
    std::memset(workspace, 0xFF, 64);
  });
  return CUBLAS_STATUS_SUCCESS;
}
