// SPDX-License-Identifier: Apache-2.0
// Stand-ins for cuBLASLt's entry points that the program uses: products in double on host memory, on the
// stream.
#include <cublasLt.h>

#include <cstring>

#include "kernels/core/bf16.h"
#include "tests/standins/injection.h"
#include "tests/standins/stream.h"

using lockstep::bf16;
using lockstep::standins::count;
using lockstep::standins::enqueue;
using lockstep::standins::Fate;
using lockstep::standins::fate_of;
using lockstep::standins::reads;
using lockstep::standins::real;
using lockstep::standins::writes;

#define FATE(name) \
  if (fate_of(name) != Fate::succeed) return CUBLAS_STATUS_EXECUTION_FAILED

namespace {

constexpr uint64_t kAlgorithm = 0x10C5, kWorkspace = 1001;
constexpr uint64_t kFailingAlgorithm = 0xFA11;  // offered, and not supported when it is executed

// In the opaque structures' place.
struct Product {
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const float* bias = nullptr;
};
struct Matrix {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t stride;
  size_t bytes() const {
    return columns * static_cast<size_t>(stride) * (type == CUDA_R_16BF ? sizeof(bf16) : sizeof(float));
  }
  double get(const void* data, uint64_t row, uint64_t column, bool transposed) const {
    const uint64_t at = transposed ? column + row * static_cast<uint64_t>(stride)
                                   : row + column * static_cast<uint64_t>(stride);
    return type == CUDA_R_16BF ? float(static_cast<const bf16*>(data)[at])
                               : static_cast<const float*>(data)[at];
  }
};
struct Preference {
  uint64_t most_workspace = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK, alignment = 256;
};
Product& of(cublasLtMatmulDesc_t d) { return *reinterpret_cast<Product*>(d); }
Matrix& of(cublasLtMatrixLayout_t d) { return *reinterpret_cast<Matrix*>(d); }
Preference& of(cublasLtMatmulPreference_t d) { return *reinterpret_cast<Preference*>(d); }

template <class T, class Handle>
cublasStatus_t create(Handle* made, T value) {
  *made = reinterpret_cast<Handle>(new T(value));
  count(1);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t destroy(T& made) {
  delete &made;
  count(-1);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t assign(T& to, const void* from, size_t bytes) {
  if (bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t judge(const Product& p, const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& d) {
  const bool ta = p.transpose_a == CUBLAS_OP_T, tb = p.transpose_b == CUBLAS_OP_T;
  const uint64_t m = ta ? a.columns : a.rows, k = ta ? a.rows : a.columns;
  if (d.rows != m || d.columns != (tb ? b.rows : b.columns) || k != (tb ? b.columns : b.rows))
    return CUBLAS_STATUS_INVALID_VALUE;
  for (const Matrix* x : {&a, &b, &c, &d})
    if (x->rows == 0 || x->columns == 0 || x->stride < static_cast<int64_t>(x->rows))
      return CUBLAS_STATUS_INVALID_VALUE;
  if (a.type != b.type || c.type != d.type || (d.type != a.type && d.type != CUDA_R_32F))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  // A bias is of D's type.
  if (p.epilogue == CUBLASLT_EPILOGUE_BIAS && d.type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
const char* cublasLtGetStatusString(cublasStatus_t s) {
  return s == CUBLAS_STATUS_EXECUTION_FAILED ? "injected failure" : "refused by the stand-in";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  FATE("cublasLtCreate");
  static int context;
  *handle = reinterpret_cast<cublasLtHandle_t>(&context);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  FATE("cublasLtMatmulDescCreate");
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_INVALID_VALUE;
  return create(d, Product());
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return destroy(of(d)); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t attribute, const void* from,
                                              size_t bytes) {
  FATE("cublasLtMatmulDescSetAttribute");
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return assign(of(d).transpose_a, from, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return assign(of(d).transpose_b, from, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return assign(of(d).epilogue, from, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return assign(of(d).bias, from, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* d, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t stride) {
  FATE("cublasLtMatrixLayoutCreate");
  return create(d, Matrix{type, rows, columns, stride});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t d) { return destroy(of(d)); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* d) {
  FATE("cublasLtMatmulPreferenceCreate");
  return create(d, Preference());
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t d) { return destroy(of(d)); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t d,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* from, size_t bytes) {
  FATE("cublasLtMatmulPreferenceSetAttribute");
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return assign(of(d).most_workspace, from, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return assign(of(d).reductions, from, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return assign(of(d).alignment, from, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

// Where sums may be split by other means than fp32 in the workspace, or addresses be taken for aligned to
// more than they are, it offers an algorithm that cublasLtMatmul refuses. The first that it offers fails.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  FATE("cublasLtMatmulAlgoGetHeuristic");
  const cublasStatus_t status = judge(of(product), of(a), of(b), of(c), of(d));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const Preference& p = of(preference);
  const bool good = p.reductions == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE && p.alignment <= 32;
  // Column-major: samples are columns, and what a weight gradient sums over.
  const bool sums_samples = of(product).transpose_b == CUBLAS_OP_T;
  const uint64_t samples = sums_samples ? of(b).columns : of(d).columns;
  *found = 0;
  if (p.most_workspace < kWorkspace || !lockstep::standins::offers_for(static_cast<int64_t>(samples)))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (const uint64_t algorithm : {kFailingAlgorithm, kAlgorithm}) {
    if (*found == most) break;
    cublasLtMatmulHeuristicResult_t& r = results[(*found)++];
    r = {};
    r.algo.data[0] = good ? algorithm : 0;
    r.workspaceSize = kWorkspace;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t ad, const void* b,
                              cublasLtMatrixLayout_t bd, const void* beta, const void* c,
                              cublasLtMatrixLayout_t cd, void* d, cublasLtMatrixLayout_t dd,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t bytes,
                              cudaStream_t stream) {
  FATE("cublasLtMatmul");
  const cublasStatus_t status = judge(of(product), of(ad), of(bd), of(cd), of(dd));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (algorithm->data[0] == kFailingAlgorithm) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (algorithm->data[0] != kAlgorithm || bytes < kWorkspace || c != d ||
      *static_cast<const float*>(alpha) != 1 ||
      (*static_cast<const float*>(beta) != 0 && *static_cast<const float*>(beta) != 1) ||
      reinterpret_cast<uintptr_t>(workspace) % 256 != 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  const Product& product_now = of(product);
  const float others = *static_cast<const float*>(beta);
  const size_t bias_bytes = product_now.epilogue == CUBLASLT_EPILOGUE_BIAS ? of(dd).rows * sizeof(float) : 0;
  enqueue(stream, "cublasLtMatmul",
          {reads(a, of(ad).bytes()), reads(b, of(bd).bytes()), reads(product_now.bias, bias_bytes),
           reads(d, others != 0 ? of(dd).bytes() : 0), writes(d, of(dd).bytes()), writes(workspace, bytes)},
          [bytes, others, am = of(ad), bm = of(bd), dm = of(dd), p = product_now, a = real(a), b = real(b),
           d = real(d), bias = real(product_now.bias), workspace = real(workspace)] {
            std::memset(workspace, 0x5A, bytes);
            const bool ta = p.transpose_a == CUBLAS_OP_T, tb = p.transpose_b == CUBLAS_OP_T;
            const uint64_t depth = ta ? am.rows : am.columns;
            for (uint64_t j = 0; j < dm.columns; ++j)
              for (uint64_t i = 0; i < dm.rows; ++i) {
                double sum = p.epilogue == CUBLASLT_EPILOGUE_BIAS ? bias[i] : 0;
                for (uint64_t k = 0; k < depth; ++k) sum += am.get(a, i, k, ta) * bm.get(b, k, j, tb);
                if (others != 0) sum += others * dm.get(d, i, j, false);
                const uint64_t at = i + j * static_cast<uint64_t>(dm.stride);
                if (dm.type == CUDA_R_16BF)
                  static_cast<bf16*>(d)[at] = bf16(static_cast<float>(sum));
                else
                  static_cast<float*>(d)[at] = static_cast<float>(sum);
              }
          });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
