// SPDX-License-Identifier: Apache-2.0
// What a launch may ask of the GPU that it is for. Included after device_code.h.
#pragma once

#include <cstddef>
#include <initializer_list>

namespace lockstep::LOCKSTEP_DEVICE {

// Shared memory that a block may have at most (CUDA C++ Programming Guide, "Compute Capabilities"), by
// architecture as nvcc numbers them.
constexpr size_t shared_bytes_of(int architecture) {
  switch (architecture / 10) {
    case 80:
    case 87:
      return 163 << 10;
    case 90:
    case 100:
    case 103:
    case 110:
      return 227 << 10;
    default:
      return 99 << 10;
  }
}

// That of this process's GPU. Plans are made without one too: the least of the architectures that this build
// is for; on the executor its own. Kernels whose tile grows with their parameters decline above it.
inline size_t most_shared_bytes() {
#ifdef __CUDACC__
  static const size_t most = [] {
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device) == cudaSuccess &&
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess)
      return static_cast<size_t>(bytes);
    cudaGetLastError();
    size_t least = size_t{227} << 10;
    for (int architecture : {__CUDA_ARCH_LIST__}) {
      const size_t of_one = shared_bytes_of(architecture);
      if (of_one < least) least = of_one;
    }
    return least;
  }();
  return most;
#else
  return simt_executor::kMaxDynamicShared;
#endif
}

}  // namespace lockstep::LOCKSTEP_DEVICE
