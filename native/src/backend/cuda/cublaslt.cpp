#include "cublaslt.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace tempora {

// The library stays open for as long as the process lives: it has registered its kernels with the driver.
struct CublasLt::Library {
  void* handle = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) algorithm_check = nullptr;

  Library() {
    const std::string file = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      throw std::runtime_error(file + " cannot be opened (" + dlerror() + "); install cuBLAS of CUDA " +
                               std::to_string(CUBLAS_VER_MAJOR) + " or put its folder into LD_LIBRARY_PATH");
    }
    resolve(create, "cublasLtCreate");
    resolve(destroy, "cublasLtDestroy");
    resolve(matmul, "cublasLtMatmul");
    resolve(desc_create, "cublasLtMatmulDescCreate");
    resolve(desc_destroy, "cublasLtMatmulDescDestroy");
    resolve(desc_set, "cublasLtMatmulDescSetAttribute");
    resolve(layout_create, "cublasLtMatrixLayoutCreate");
    resolve(layout_destroy, "cublasLtMatrixLayoutDestroy");
    resolve(preference_create, "cublasLtMatmulPreferenceCreate");
    resolve(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    resolve(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    resolve(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    resolve(algorithm_check, "cublasLtMatmulAlgoCheck");
  }

  template <typename Function>
  void resolve(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(dlsym(handle, symbol));
    if (function == nullptr) {
      throw std::runtime_error(std::string("cuBLASLt lacks ") + symbol + "; install a newer one");
    }
  }
};

namespace {

void check(cublasStatus_t status, const std::string& call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error("cuBLASLt: " + call + " failed with status " + std::to_string(status));
}

std::string name_of(const DeviceProduct& p) {
  const auto type = [](DType dtype) { return dtype == DType::f32 ? " f32" : " bf16"; };
  return "a product of " + std::to_string(p.m) + " x " + std::to_string(p.n) + " x " + std::to_string(p.k) +
         type(p.input) + " to" + type(p.output);
}

// Shapes that are kept, and what a number of tokens is rounded up to where an algorithm is chosen: forests differ in
// it, and for some numbers the library names an algorithm several times slower than for the next multiple.
constexpr std::size_t kPlans = 512;
constexpr std::int64_t kTokenMultiple = 64;

// The dimension that is a number of tokens: rows of a plain product, what is summed over in a gradient's.
DeviceProduct with_rounded_tokens(DeviceProduct p) {
  std::int64_t& tokens = p.transpose_a ? p.k : p.m;
  if (!p.transpose_a || !p.transpose_b) tokens = (tokens + kTokenMultiple - 1) / kTokenMultiple * kTokenMultiple;
  return p;
}

cudaDataType_t data_type(DType dtype) { return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF; }

}  // namespace

#define TEMPORA_LT_CHECK(call) check((call), #call)

// cuBLASLt is column-major: a row-major c = op(a)·op(b) is computed as cᵀ = op(b)ᵀ·op(a)ᵀ, so b is its first operand.
struct CublasLt::Plan {
  const Library& library;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  std::int64_t first_rows = 0;  // where these and the others are two products, and this plan of neither

  explicit Plan(const Library& from) : library(from) {}
  ~Plan() {
    if (operation != nullptr) library.desc_destroy(operation);
    for (cublasLtMatrixLayout_t layout : {first, second, result}) {
      if (layout != nullptr) library.layout_destroy(layout);
    }
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

CublasLt::CublasLt() : library_(std::make_unique<Library>()) { TEMPORA_LT_CHECK(library_->create(&handle_)); }

std::string CublasLt::problem() {
  try {
    Library();
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

CublasLt::~CublasLt() {
  plans_.clear();
  if (handle_ != nullptr) library_->destroy(handle_);
}

std::unique_ptr<CublasLt::Plan> CublasLt::describe(const DeviceProduct& p) {
  auto plan = std::make_unique<Plan>(*library_);
  const Library& lt = *library_;
  // f32 products are for checks against the CPU: no TF32.
  TEMPORA_LT_CHECK(lt.desc_create(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t first_op = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second_op = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  TEMPORA_LT_CHECK(lt.desc_set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first_op, sizeof first_op));
  TEMPORA_LT_CHECK(lt.desc_set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second_op, sizeof second_op));

  const auto layout = [&](cublasLtMatrixLayout_t& out, DType dtype, std::int64_t rows, std::int64_t cols,
                          std::int64_t stride) {
    TEMPORA_LT_CHECK(lt.layout_create(&out, data_type(dtype), static_cast<std::uint64_t>(cols),
                                      static_cast<std::uint64_t>(rows), stride));
  };
  layout(plan->first, p.input, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.b_stride);
  layout(plan->second, p.input, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.a_stride);
  layout(plan->result, p.output, p.m, p.n, p.c_stride);
  return plan;
}

// What the library takes for the fastest.
cublasLtMatmulAlgo_t CublasLt::best_algorithm(const DeviceProduct& p, const Plan& plan) {
  const Library& lt = *library_;
  cublasLtMatmulPreference_t preference = nullptr;
  TEMPORA_LT_CHECK(lt.preference_create(&preference));
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, decltype(lt.preference_destroy)> owner(preference,
                                                                                                 lt.preference_destroy);
  const std::size_t workspace = kWorkspaceBytes;
  // A gradient's sum over many tokens may be split where its few tiles would leave most of the device idle; its parts
  // are then added in one order, by way of the workspace. (In place they would be added as they come.)
  const std::uint32_t reduction =
      p.transpose_a ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
  TEMPORA_LT_CHECK(
      lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
  TEMPORA_LT_CHECK(
      lt.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction));
  const auto alignment = [&](cublasLtMatmulPreferenceAttributes_t attribute, std::uint32_t bytes) {
    TEMPORA_LT_CHECK(lt.preference_set(preference, attribute, &bytes, sizeof bytes));
  };
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.b_alignment);
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.a_alignment);
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.c_alignment);
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.c_alignment);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  TEMPORA_LT_CHECK(lt.heuristic(handle_, plan.operation, plan.first, plan.second, plan.result, plan.result, preference,
                                1, &best, &found));
  if (found == 0 || best.state != CUBLAS_STATUS_SUCCESS) {
    throw std::runtime_error("cuBLASLt has no algorithm for " + name_of(p));
  }
  return best.algo;
}

// That of the rounded shape, where it can compute this one too.
std::optional<cublasLtMatmulAlgo_t> CublasLt::rounded_algorithm(const DeviceProduct& product, const Plan& plan) {
  const DeviceProduct rounded = with_rounded_tokens(product);
  auto found = rounded_algorithms_.find(rounded);
  if (found == rounded_algorithms_.end()) {
    found = rounded_algorithms_.emplace(rounded, best_algorithm(rounded, *describe(rounded))).first;
  }
  cublasLtMatmulHeuristicResult_t checked{};
  const cublasStatus_t status = library_->algorithm_check(handle_, plan.operation, plan.first, plan.second, plan.result,
                                                          plan.result, &found->second, &checked);
  const bool fits = status == CUBLAS_STATUS_SUCCESS && checked.state == CUBLAS_STATUS_SUCCESS &&
                    checked.workspaceSize <= kWorkspaceBytes;
  return fits ? std::optional(found->second) : std::nullopt;
}

CublasLt::Plan& CublasLt::plan_for(const DeviceProduct& product) {
  if (const auto known = plans_.find(product); known != plans_.end()) return *known->second;
  if (plans_.size() == kPlans) plans_.clear();
  auto plan = describe(product);
  if (const auto algorithm = rounded_algorithm(product, *plan)) {
    plan->algorithm = *algorithm;
  } else if (!product.transpose_a && product.m > kTokenMultiple && product.m % kTokenMultiple != 0) {
    plan->first_rows = product.m / kTokenMultiple * kTokenMultiple;
  } else {
    plan->algorithm = best_algorithm(product, *plan);
  }
  return *plans_.emplace(product, std::move(plan)).first->second;
}

void CublasLt::run(const DeviceProduct& product, const void* a, const void* b, const void* added, void* c,
                   void* workspace, cudaStream_t stream) {
  Plan& plan = plan_for(product);
  if (plan.first_rows > 0) {
    const std::int64_t rows = plan.first_rows;
    const auto later = [&](const void* matrix, std::int64_t stride, DType dtype) {
      return static_cast<const char*>(matrix) + static_cast<std::size_t>(rows * stride) * size_of(dtype);
    };
    DeviceProduct first = product, rest = product;
    first.m = rows;
    rest.m = product.m - rows;
    run(first, a, b, added, c, workspace, stream);
    return run(rest, later(a, product.a_stride, product.input), b, later(added, product.c_stride, product.output),
               const_cast<char*>(later(c, product.c_stride, product.output)), workspace, stream);
  }
  const float one = 1, beta = product.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status =
      library_->matmul(handle_, plan.operation, &one, b, plan.first, a, plan.second, &beta, added, plan.result, c,
                       plan.result, &plan.algorithm, workspace, kWorkspaceBytes, stream);
  if (status != CUBLAS_STATUS_SUCCESS) check(status, name_of(product));
}

}  // namespace tempora
