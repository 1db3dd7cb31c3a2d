// SPDX-License-Identifier: Apache-2.0
// NVIDIA's libraries as candidates beside our own kernels (cudnn.h, cublaslt.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

// One line each: "cuDNN 9.19.0", or why it is not to be had. Loads them. Empty without CUDA in the build.
std::vector<std::string> gpu_library_descriptions();

// Whether this machine has a GPU and its driver. Plans are made without them too: library kernels decline
// then.
bool gpu_is_here();

// The libraries want their workspace at multiples of 256 bytes.
inline constexpr int64_t kGpuAlignment = 256;
inline int64_t gpu_aligned(int64_t bytes) {
  return (bytes + kGpuAlignment - 1) / kGpuAlignment * kGpuAlignment;
}
inline std::byte* gpu_aligned(void* p) {
  return reinterpret_cast<std::byte*>(gpu_aligned(static_cast<int64_t>(reinterpret_cast<uintptr_t>(p))));
}

}  // namespace lockstep
