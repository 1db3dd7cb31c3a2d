// SPDX-License-Identifier: Apache-2.0
#include "kernels/vendor/gpu_libraries.h"

#ifdef LOCKSTEP_HAS_CUDA
#include <cuda_runtime_api.h>
#endif
#ifdef LOCKSTEP_HAS_CUDNN
#include "kernels/vendor/cudnn.h"
#endif
#ifdef LOCKSTEP_HAS_CUBLASLT
#include "kernels/vendor/cublaslt.h"
#endif

namespace lockstep {

bool gpu_is_here() {
#ifdef LOCKSTEP_HAS_CUDA
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
#else
  return false;
#endif
}

std::vector<std::string> gpu_library_descriptions() {
  std::vector<std::string> lines;
#ifdef LOCKSTEP_HAS_CUDNN
  lines.push_back(Cudnn::description());
#endif
#ifdef LOCKSTEP_HAS_CUBLASLT
  lines.push_back(CublasLt::description());
#endif
  return lines;
}

}  // namespace lockstep
