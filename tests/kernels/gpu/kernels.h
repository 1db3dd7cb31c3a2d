// SPDX-License-Identifier: Apache-2.0
// Kernels for tests, each broken in one way (broken.cu), using one part of the vocabulary (words.cu) or of
// known cost (counted.cu). Called by name, so that the tests need no nvcc.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace lockstep {

struct TestMemory {
  float* x = nullptr;  // 256 floats, aligned to 64 bytes
  float* y = nullptr;  // 256 floats
  int* i = nullptr;    // 64 integers, aligned to 64 bytes
};
using TestKernels = std::map<std::string, std::function<void(const TestMemory&)>>;

namespace simt {
TestKernels broken_kernels();
TestKernels word_kernels();
}  // namespace simt
namespace simt_watched {
TestKernels broken_kernels();
TestKernels word_kernels();
TestKernels counted_kernels();
}  // namespace simt_watched

}  // namespace lockstep
