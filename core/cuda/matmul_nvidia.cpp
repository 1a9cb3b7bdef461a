// Matrix products by cuBLASLt. It is column-major: the row-major C = op(A) op(B) is computed as C^T = op(B)^T
// op(A)^T, where a stored row-major matrix is read as its own transpose, so that A and B change places and keep
// their flags.
#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "core/cuda/matmul_check.h"
#include "core/error.h"

namespace modrwkv::cuda {
namespace {

constexpr size_t kWorkspace = size_t(32) << 20;

void check(cublasStatus_t status, const char* call, const Matmul& p) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail("matmul: {}: {} ({} x {} x {}, batch {}, {} -> {})", call, cublasLtGetStatusString(status), p.m, p.n,
       p.k, p.batch, name_of(p.input), name_of(p.output));
}

cudaDataType_t type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// A prepared product: descriptors and the algorithm that the library's heuristic chose.
struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

// One of each a thread and device, so that no lock is held while a product is queued; they live as long as the
// process.
struct Library {
  cublasLtHandle_t handle = nullptr;
  std::map<Stream, void*> workspaces;  // products in different streams may run at the same time
  using Key = std::tuple<bool, bool, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                         int64_t, int64_t, int, int, int, int>;
  std::map<Key, Plan> plans;
};

cublasLtMatrixLayout_t layout(const Matmul& p, DType type, int64_t rows, int64_t cols, int64_t lead,
                              int64_t stride) {
  cublasLtMatrixLayout_t l = nullptr;
  check(cublasLtMatrixLayoutCreate(&l, type_of(type), uint64_t(rows), uint64_t(cols), lead),
        "cublasLtMatrixLayoutCreate", p);
  if (p.batch > 1) {
    const int32_t count = int32_t(p.batch);
    check(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
          "batch count", p);
    check(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                           sizeof stride),
          "batch stride", p);
  }
  return l;
}

// A plan serves all problems of one shape whose pointers are multiples of `alignment` bytes.
Plan make_plan(Library& lib, const Matmul& p, uint32_t alignment) {
  Plan plan;
  const cublasComputeType_t compute =
      p.input == DType::f32 && p.allow_tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check(cublasLtMatmulDescCreate(&plan.operation, compute, CUDA_R_32F), "cublasLtMatmulDescCreate", p);
  const cublasOperation_t first = p.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                          second = p.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first),
        "transposition", p);
  check(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second),
        "transposition", p);
  if (p.bias != nullptr) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const int32_t type = type_of(p.bias_type);
    check(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                         sizeof epilogue),
          "epilogue", p);
    check(
        cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type),
        "bias type", p);
    check(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                         sizeof p.bias),
          "bias", p);
  }
  plan.a = layout(p, p.input, p.trans_b ? p.k : p.n, p.trans_b ? p.n : p.k, p.ldb, p.stride_b);
  plan.b = layout(p, p.input, p.trans_a ? p.m : p.k, p.trans_a ? p.k : p.m, p.lda, p.stride_a);
  plan.c = layout(p, p.output, p.n, p.m, p.ldc, p.stride_c);
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", p);
  const size_t workspace = kWorkspace;
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                             sizeof workspace),
        "workspace", p);
  for (const auto which :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, which, &alignment, sizeof alignment), "alignment",
          p);
  }
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(lib.handle, plan.operation, plan.a, plan.b,
                                                               plan.c, plan.c, preference, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status, "cublasLtMatmulAlgoGetHeuristic", p);
  require(count > 0, "matmul: cuBLASLt has no algorithm for {} x {} x {}, {} -> {}", p.m, p.n, p.k,
          name_of(p.input), name_of(p.output));
  plan.algorithm = found.algo;
  return plan;
}

Library& library(const Matmul& p) {
  thread_local std::map<int, Library> all;
  Library& lib = all[current_device()];
  if (lib.handle == nullptr) check(cublasLtCreate(&lib.handle), "cublasLtCreate", p);
  return lib;
}

int log2_alignment(const void* p) {
  return p == nullptr ? 8 : std::min(8, __builtin_ctzll(reinterpret_cast<uintptr_t>(p)));
}

}  // namespace

void matmul(const Matmul& p, Stream stream) {
  if (!check_matmul(p)) return;
  require(stream != nullptr, "matmul: the null stream");
  if (p.k == 0) {  // an empty sum; the library refuses it
    if (p.beta != 0) return;
    for (int64_t i = 0; i < p.batch; ++i) {
      char* c = static_cast<char*>(p.c) + size_t(i * p.stride_c) * size_of(p.output);
      for (int64_t row = 0; row < p.m; ++row)
        fill(c + size_t(row * p.ldc) * size_of(p.output), 0, size_t(p.n) * size_of(p.output), stream);
    }
    return;
  }
  Library& lib = library(p);
  void*& workspace = lib.workspaces[stream];
  if (workspace == nullptr) workspace = alloc(kWorkspace, stream);
  const int alignment = std::min({log2_alignment(p.a), log2_alignment(p.b), log2_alignment(p.c)});
  const Library::Key key{p.trans_a,
                         p.trans_b,
                         p.m,
                         p.n,
                         p.k,
                         p.lda,
                         p.ldb,
                         p.ldc,
                         p.batch,
                         p.stride_a,
                         p.stride_b,
                         p.stride_c,
                         int(p.input),
                         int(p.output),
                         p.bias ? 1 + int(p.bias_type) : 0,
                         alignment * 2 + p.allow_tf32};
  auto found = lib.plans.find(key);
  if (found == lib.plans.end()) found = lib.plans.emplace(key, make_plan(lib, p, 1u << alignment)).first;
  const Plan& plan = found->second;
  if (p.bias != nullptr) {
    check(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                         sizeof p.bias),
          "bias", p);
  }
  const float one = 1.0f;
  check(cublasLtMatmul(lib.handle, plan.operation, &one, p.b, plan.a, p.a, plan.b, &p.beta, p.c, plan.c, p.c,
                       plan.c, &plan.algorithm, workspace, kWorkspace, reinterpret_cast<cudaStream_t>(stream)),
        "cublasLtMatmul", p);
}

}  // namespace modrwkv::cuda
