#include "tensor/cuda/blas.h"

#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "tensor/allocator.h"
#include "tensor/context.h"
#include "tensor/cuda/native/check.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki::cuda {

namespace {

constexpr size_t kWorkspace = size_t{32} << 20;

void check_blas(cublasStatus_t status, const char* what, const Gemm& g) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const std::string where = context_path();
  throw Error(str(what, ": ", cublasLtGetStatusString(status), " for m", g.m, " n", g.n, " k", g.k,
                  " b", g.batch, " ", name_of(g.in), where.empty() ? "" : " (in " + where + ")"));
}

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::f64 ? CUDA_R_64F : dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// Alignment that a kernel may count on, bytes.
uint32_t alignment(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return static_cast<uint32_t>(std::min<uintptr_t>(256, address & (~address + 1)));
}

// Descriptors and algorithm of one form of product. cublasLt is column-major, so it is given
// C^T = op(B)^T op(A)^T: its first operand is our B.
struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;
};

cublasLtMatrixLayout_t layout(const Gemm& g, DType dtype, int64_t rows, int64_t columns, int64_t ld,
                              int64_t stride) {
  cublasLtMatrixLayout_t l = nullptr;
  check_blas(cublasLtMatrixLayoutCreate(&l, type_of(dtype), static_cast<uint64_t>(rows),
                                        static_cast<uint64_t>(columns), ld),
             "cublasLtMatrixLayoutCreate", g);
  const auto batch = static_cast<int32_t>(g.batch);
  check_blas(
      cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch),
      "batch count", g);
  check_blas(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                              &stride, sizeof stride),
             "batch stride", g);
  return l;
}

Plan make_plan(cublasLtHandle_t handle, const Gemm& g, const void* a, const void* b, const void* c,
               const void* bias) {
  Plan p;
  const bool f64 = g.in == DType::f64;
  const cublasComputeType_t compute = f64 ? CUBLAS_COMPUTE_64F
                                      : g.math == Math::tf32 && g.in == DType::f32
                                          ? CUBLAS_COMPUTE_32F_FAST_TF32
                                          : CUBLAS_COMPUTE_32F;
  check_blas(cublasLtMatmulDescCreate(&p.operation, compute, f64 ? CUDA_R_64F : CUDA_R_32F),
             "cublasLtMatmulDescCreate", g);
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
    check_blas(cublasLtMatmulDescSetAttribute(p.operation, name, &value, sizeof value),
               "cublasLtMatmulDescSetAttribute", g);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, g.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, g.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(type_of(g.out)));
  }
  // Stored rows and columns, swapped: row-major [r, c] is column-major [c, r].
  p.first = layout(g, g.in, g.trans_b ? g.k : g.n, g.trans_b ? g.n : g.k, g.ldb, g.stride_b);
  p.second = layout(g, g.in, g.trans_a ? g.m : g.k, g.trans_a ? g.k : g.m, g.lda, g.stride_a);
  p.result = layout(g, g.out, g.n, g.m, g.ldc, g.stride_c);

  cublasLtMatmulPreference_t preference = nullptr;
  check_blas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", g);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    check_blas(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value),
               "cublasLtMatmulPreferenceSetAttribute", g);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(c));
  cublasLtMatmulHeuristicResult_t best{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, p.operation, p.first, p.second, p.result, p.result, preference, 1, &best, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  p.found = status == CUBLAS_STATUS_SUCCESS && count > 0 && best.state == CUBLAS_STATUS_SUCCESS;
  p.algorithm = best.algo;
  if (!p.found && !bias)
    check_blas(status == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_NOT_SUPPORTED : status,
               "cublasLtMatmulAlgoGetHeuristic", g);
  return p;
}

using Key =
    std::tuple<DType, DType, Math, bool, bool, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
               int64_t, int64_t, int64_t, int64_t, uint32_t, uint32_t, uint32_t, bool>;

class Products {
 public:
  bool run(const Gemm& g, const void* a, const void* b, void* c, const void* bias) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Plan& p = plan(g, a, b, c, bias);
    if (p.found) {
      execute(p, g, a, b, c, bias);
      return true;
    }
    execute(plan(g, a, b, c, nullptr), g, a, b, c, nullptr);  // no kernel with this epilogue
    return false;
  }

 private:
  const Plan& plan(const Gemm& g, const void* a, const void* b, const void* c, const void* bias) {
    const Key key{g.in,         g.out,        g.math,       g.trans_a,      g.trans_b,
                  g.m,          g.n,          g.k,          g.batch,        g.lda,
                  g.ldb,        g.ldc,        g.stride_a,   g.stride_b,     g.stride_c,
                  alignment(a), alignment(b), alignment(c), bias != nullptr};
    auto it = plans_.find(key);
    if (it == plans_.end()) {
      forbid_while_capturing("the first product of a new shape");
      if (!handle_) check_blas(cublasLtCreate(&handle_), "cublasLtCreate", g);
      it = plans_.emplace(key, make_plan(handle_, g, a, b, c, bias)).first;
    }
    return it->second;
  }

  void execute(const Plan& p, const Gemm& g, const void* a, const void* b, void* c,
               const void* bias) {
    void*& workspace = workspaces_[stream_index()];
    if (!workspace)
      workspace = keep_device_memory(kWorkspace, "cuBLAS at the first product of a stream");
    if (bias)
      check_blas(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                &bias, sizeof bias),
                 "bias pointer", g);
    const double one64 = 1, beta64 = g.accumulate ? 1 : 0;
    const float one32 = 1, beta32 = g.accumulate ? 1 : 0;
    const bool f64 = g.in == DType::f64;
    check_blas(
        cublasLtMatmul(handle_, p.operation,
                       f64 ? static_cast<const void*>(&one64) : static_cast<const void*>(&one32), b,
                       p.first, a, p.second,
                       f64 ? static_cast<const void*>(&beta64) : static_cast<const void*>(&beta32),
                       c, p.result, c, p.result, &p.algorithm, workspace, kWorkspace,
                       static_cast<cudaStream_t>(stream())),
        "cublasLtMatmul", g);
  }

  std::mutex mutex_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Plan> plans_;
  std::map<int, void*> workspaces_;  // by stream
};

Products& products() {
  static auto* p = new Products;  // never destroyed: the driver may be gone by then
  return *p;
}

}  // namespace

bool gemm(const Gemm& g, const void* a, const void* b, void* c, const void* bias) {
  return products().run(g, a, b, c, bias);
}

}  // namespace mtcki::cuda
