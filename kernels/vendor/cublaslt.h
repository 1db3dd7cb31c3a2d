// SPDX-License-Identifier: Apache-2.0
// What the cuBLASLt kernels are made of: the library, and one matrix product, prepared.
#pragma once

#include <cublasLt.h>

#include <memory>

#include "kernels/core/tensor.h"
#include "kernels/vendor/gpu_libraries.h"

namespace lockstep {

#define LOCKSTEP_CUBLASLT_FUNCTIONS(F)    \
  F(cublasLtGetVersion)                   \
  F(cublasLtGetStatusString)              \
  F(cublasLtCreate)                       \
  F(cublasLtMatmulDescCreate)             \
  F(cublasLtMatmulDescDestroy)            \
  F(cublasLtMatmulDescSetAttribute)       \
  F(cublasLtMatrixLayoutCreate)           \
  F(cublasLtMatrixLayoutDestroy)          \
  F(cublasLtMatmulPreferenceCreate)       \
  F(cublasLtMatmulPreferenceDestroy)      \
  F(cublasLtMatmulPreferenceSetAttribute) \
  F(cublasLtMatmulAlgoGetHeuristic)       \
  F(cublasLtMatmul)

class CublasLt {
 public:
  // As Cudnn::get() and description().
  static CublasLt* get();
  static const std::string& description();

  cublasLtHandle_t handle();
  void check(cublasStatus_t status, const char* call) const;
  [[noreturn]] void fail(const std::string& what) const;  // as check()
  std::string describe(const char* call, cublasStatus_t status) const;

#define LOCKSTEP_MEMBER(name) decltype(&::name) name = nullptr;
  LOCKSTEP_CUBLASLT_FUNCTIONS(LOCKSTEP_MEMBER)
#undef LOCKSTEP_MEMBER

 private:
  cublasLtHandle_t handle_ = nullptr;
};

#define LOCKSTEP_CUBLASLT(lt, name, ...) (lt).check((lt).name(__VA_ARGS__), #name)

// A matrix as it lies in memory: row-major, rows packed.
struct RowMajor {
  int64_t rows = 0, columns = 0;
  bool transposed = false;  // the product takes its transpose
};

// Addresses of tensors are multiples of that at least: slices of the flat array of bf16 parameters begin every
// 16 numbers.
inline constexpr uint32_t kCublasLtAlignment = 32;

// d = a b (+ bias[column]), row-major all; sums in fp32, and for fp32 a and b their products too (no TF32).
// Algorithms: only those that repeat bit for bit, for addresses that are multiples of `alignment`.
class MatrixProduct {
 public:
  // False: cuBLASLt has none for it.
  bool prepare(CublasLt& lt, RowMajor a, RowMajor b, DType ab, DType d, bool bias, uint32_t alignment);
  int64_t workspace_bytes() const { return workspace_ ? workspace_ + kGpuAlignment : 0; }
  // `add`: d += a b.
  void run(const void* a, const void* b, const float* bias, void* d, bool add, void* workspace, void* stream);

 private:
  template <class T>
  using Owned = std::unique_ptr<std::remove_pointer_t<T>, cublasStatus_t (*)(T)>;

  CublasLt* lt_ = nullptr;
  Owned<cublasLtMatmulDesc_t> product_{nullptr, nullptr};
  Owned<cublasLtMatrixLayout_t> a_{nullptr, nullptr}, b_{nullptr, nullptr}, d_{nullptr, nullptr};
  Algorithms<cublasLtMatmulAlgo_t> algorithms_;
  int64_t workspace_ = 0;        // the most that one wants
  const float* bias_ = nullptr;  // what the descriptor has now
};

}  // namespace lockstep
