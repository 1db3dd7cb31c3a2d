// SPDX-License-Identifier: Apache-2.0
// In place of runtime/cuda/nccl_collectives.cpp where there is no NCCL.
#include "kernels/core/error.h"
#include "runtime/comm/device_collectives.h"

namespace lockstep {

bool built_with_nccl() { return false; }
bool has_nccl() { return false; }
std::string nccl_description() { return "this build has no NCCL"; }

std::unique_ptr<DeviceCollectives> make_nccl_collectives(DeviceRuntime&, Communicator&, NcclOptions) {
  throw Error(Exit::config, "E_NO_NCCL", "backend nccl: this build has no NCCL")
      .hint("backend: mpi works here");
}

}  // namespace lockstep
