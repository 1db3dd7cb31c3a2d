// SPDX-License-Identifier: Apache-2.0
// The matrix product's tiles one by one: which of them an op's case meets depends on its size.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

struct TestGemm {
  std::string name;
  bool bf16, a_along_k, b_along_k;
  int slices;  // 1: D + bias, in the operands' type; else partial sums, float
  // a: [m][k] or [k][m], b: [n][k] or [k][n], in the operands' type.
  void (*run)(const void* a, const void* b, const float* bias, void* d, int m, int n, int k);
};

namespace cuda {
std::vector<TestGemm> gemm_tiles();
}
namespace simt {
std::vector<TestGemm> gemm_tiles();
}
namespace simt_watched {
std::vector<TestGemm> gemm_tiles();
}

}  // namespace lockstep
