// SPDX-License-Identifier: Apache-2.0
// bf16 kernels made of f32 ones: tensors are widened into the workspace, the f32 kernel runs there, what it
// gives is rounded once. Some samples at a time, so that the f32 copies stay in the cache.
#pragma once

#include <memory>
#include <vector>

#include "kernels/core/kernel.h"

namespace lockstep {

using MakeKernel = std::unique_ptr<Kernel> (*)(const KernelRequest&);

// Which tensors' dimension 0 is the batch. Outputs that don't follow it are sums over it, and f32.
struct FollowBatch {
  std::vector<int> in, out;
};

// nullptr where `make` declines. Whatever the f32 kernel's bits don't depend on, these don't either, but for
// the sums, which depend on how the batch is cut.
std::unique_ptr<Kernel> make_widened(const KernelRequest&, MakeKernel make, const FollowBatch&);

}  // namespace lockstep
