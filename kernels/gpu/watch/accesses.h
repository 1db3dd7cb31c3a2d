// SPDX-License-Identifier: Apache-2.0
// From the compiler's call-outs to the watch.
#pragma once

#include <cstddef>

namespace lockstep::gpu_watch {

void judge_access(const void* address, size_t bytes, size_t alignment, bool write, const void* place);

}  // namespace lockstep::gpu_watch
