// SPDX-License-Identifier: Apache-2.0
// Calls into CUDA, with their failures as Errors.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/core/error.h"

namespace lockstep {

inline void cuda_call(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  const bool memory = status == cudaErrorMemoryAllocation;
  Error e(memory ? Exit::io : Exit::internal, memory ? "E_MEMORY" : "E_CUDA",
          fmt::format("{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status)));
  if (memory) e.set_hint("a smaller global_batch_size, or gradient_accumulation, needs less");
  throw e;
}

#define LOCKSTEP_CUDA(call) ::lockstep::cuda_call(call, #call)

}  // namespace lockstep
