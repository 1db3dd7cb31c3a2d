// SPDX-License-Identifier: Apache-2.0
#include "kernels/vendor/cublaslt.h"

#include <algorithm>
#include <array>

#include "kernels/vendor/shared_library.h"

namespace lockstep {
namespace {

constexpr uint64_t kMostWorkspace = 64 << 20;
constexpr int kMostAlgorithms = 8;  // to fall back on

struct Loaded {
  std::unique_ptr<CublasLt> lt;
  std::string description;
};

Loaded load() {
  Loaded l;
  if (!gpu_is_here()) {
    l.description = "no cuBLASLt: no GPU is here";
    return l;
  }
  const SharedLibrary library({LOCKSTEP_CUBLASLT_LIBRARY, LOCKSTEP_CUBLASLT_NAME});
  if (!library.loaded()) {
    l.description = "no cuBLASLt: " + library.problem();
    return l;
  }
  auto lt = std::make_unique<CublasLt>();
#define LOCKSTEP_FIND(name)                                                 \
  lt->name = reinterpret_cast<decltype(lt->name)>(library.symbol(#name));   \
  if (!lt->name) {                                                          \
    l.description = "no cuBLASLt: " LOCKSTEP_CUBLASLT_NAME " lacks " #name; \
    return l;                                                               \
  }
  LOCKSTEP_CUBLASLT_FUNCTIONS(LOCKSTEP_FIND)
#undef LOCKSTEP_FIND
  const size_t version = lt->cublasLtGetVersion();
  l.description = fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  l.lt = std::move(lt);
  return l;
}

const Loaded& loaded() {
  static const Loaded l = load();
  return l;
}

cudaDataType_t type(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

}  // namespace

CublasLt* CublasLt::get() { return loaded().lt.get(); }
const std::string& CublasLt::description() { return loaded().description; }

cublasLtHandle_t CublasLt::handle() {
  if (!handle_) LOCKSTEP_CUBLASLT(*this, cublasLtCreate, &handle_);
  return handle_;
}

void CublasLt::check(cublasStatus_t status, const char* call) const {
  if (status != CUBLAS_STATUS_SUCCESS) fail(describe(call, status));
}
void CublasLt::fail(const std::string& what) const {
  throw Error(Exit::internal, "E_CUBLASLT", what).hint("CUBLASLT_LOG_LEVEL=1 says more");
}
std::string CublasLt::describe(const char* call, cublasStatus_t status) const {
  return fmt::format("{}: {} ({})", call, cublasLtGetStatusString(status), static_cast<int>(status));
}

// cuBLASLt counts in columns: to it a row-major matrix is its own transpose, and d^T = b^T a^T.
bool MatrixProduct::prepare(CublasLt& lt, RowMajor a, RowMajor b, DType ab, DType d, bool bias,
                            uint32_t alignment) {
  lt_ = &lt;
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    LOCKSTEP_CUBLASLT(lt, cublasLtMatmulDescSetAttribute, product_.get(), attribute, &value, sizeof value);
  };
  const auto layout = [&](DType t, int64_t rows, int64_t columns) {
    cublasLtMatrixLayout_t made = nullptr;
    LOCKSTEP_CUBLASLT(lt, cublasLtMatrixLayoutCreate, &made, type(t), static_cast<uint64_t>(columns),
                      static_cast<uint64_t>(rows), columns);
    return Owned<cublasLtMatrixLayout_t>(made, lt.cublasLtMatrixLayoutDestroy);
  };
  cublasLtMatmulDesc_t product = nullptr;
  LOCKSTEP_CUBLASLT(lt, cublasLtMatmulDescCreate, &product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  product_ = {product, lt.cublasLtMatmulDescDestroy};
  set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N});
  set(CUBLASLT_MATMUL_DESC_TRANSB, int32_t{a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N});
  if (bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t{CUBLASLT_EPILOGUE_BIAS});
    // For the query, which looks at its alignment only.
    bias_ = reinterpret_cast<const float*>(uintptr_t{kCublasLtAlignment});
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_);
  }
  a_ = layout(ab, a.rows, a.columns);
  b_ = layout(ab, b.rows, b.columns);
  d_ = layout(d, a.transposed ? a.columns : a.rows, b.transposed ? b.rows : b.columns);

  cublasLtMatmulPreference_t made = nullptr;
  LOCKSTEP_CUBLASLT(lt, cublasLtMatmulPreferenceCreate, &made);
  const Owned<cublasLtMatmulPreference_t> preference(made, lt.cublasLtMatmulPreferenceDestroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    LOCKSTEP_CUBLASLT(lt, cublasLtMatmulPreferenceSetAttribute, preference.get(), attribute, &value,
                      sizeof value);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMostWorkspace);
  // Split sums meet in fp32 in the workspace, in a step of their own.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(attribute, alignment);

  std::array<cublasLtMatmulHeuristicResult_t, kMostAlgorithms> offers{};
  int found = 0;
  const cublasStatus_t status =
      lt.cublasLtMatmulAlgoGetHeuristic(lt.handle(), product, b_.get(), a_.get(), d_.get(), d_.get(),
                                        preference.get(), kMostAlgorithms, offers.data(), &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return false;
  lt.check(status, "cublasLtMatmulAlgoGetHeuristic");
  for (const auto& offer : std::span(offers).first(static_cast<size_t>(found))) {
    if (offer.state != CUBLAS_STATUS_SUCCESS) continue;
    algorithms_.add(offer.algo);
    workspace_ = std::max(workspace_, static_cast<int64_t>(offer.workspaceSize));
  }
  return !algorithms_.empty();
}

void MatrixProduct::run(const void* a, const void* b, const float* bias, void* d, bool add, void* workspace,
                        void* stream) {
  if (bias != bias_) {
    LOCKSTEP_CUBLASLT(*lt_, cublasLtMatmulDescSetAttribute, product_.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                      &bias, sizeof bias);
    bias_ = bias;
  }
  const float one = 1, others = add ? 1 : 0;
  const std::string problem = algorithms_.run([&](const cublasLtMatmulAlgo_t& algorithm) -> std::string {
    const cublasStatus_t status =
        lt_->cublasLtMatmul(lt_->handle(), product_.get(), &one, b, b_.get(), a, a_.get(), &others, d,
                            d_.get(), d, d_.get(), &algorithm, workspace_ ? gpu_aligned(workspace) : nullptr,
                            static_cast<size_t>(workspace_), static_cast<cudaStream_t>(stream));
    return status == CUBLAS_STATUS_SUCCESS ? std::string() : lt_->describe("cublasLtMatmul", status);
  });
  if (!problem.empty()) lt_->fail(problem);
}

}  // namespace lockstep
