// SPDX-License-Identifier: Apache-2.0
// In place of runtime/cuda/gpu.cpp where there is no CUDA.
#include "kernels/core/error.h"
#include "runtime/device/device_runtime.h"

namespace lockstep {

bool has_cuda() { return false; }
int gpu_count() { return 0; }
int64_t gpu_memory() { return 0; }

std::unique_ptr<DeviceRuntime> make_cuda_runtime(int) {
  throw Error(Exit::config, "E_NO_CUDA", "device cuda: this build has no CUDA")
      .hint("device: cpu works here");
}

}  // namespace lockstep
