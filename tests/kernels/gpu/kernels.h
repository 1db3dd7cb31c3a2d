// SPDX-License-Identifier: Apache-2.0
// Kernels for tests, each broken in one way (broken.cu), using one part of the vocabulary (words.cu) or of
// known cost (counted.cu). Called by name, so that the tests need no nvcc.
#pragma once

#include <array>
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
// Floats that bf16 rounds down, to even, up, to infinity and to a quiet NaN.
inline constexpr std::array<uint32_t, 13> kBitsToRound = {
    0x00000000, 0x80000000, 0x3F800000, 0x3F807FFF, 0x3F808000, 0x3F808001, 0x3F818000,
    0xBF81FFFF, 0x7F7FFFFF, 0x00000001, 0x007FFFFF, 0xFF800000, 0xFFC12345};
using TestKernels = std::map<std::string, std::function<void(const TestMemory&)>>;

namespace cuda {  // on a GPU, in its memory
TestKernels word_kernels();
}
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
