// SPDX-License-Identifier: Apache-2.0
// Names of code addresses and of this program's thread-local variables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::gpu_watch {

struct Source {
  std::string function;  // with template arguments
  std::string
      place;  // file:line from the source tree's root; the innermost outside device_code.h's vocabulary
};
struct CodeAddress {
  const void* address;
  bool behind_call;  // what a call returns to, rather than the code itself
};
std::vector<Source> look_up(const std::vector<CodeAddress>&);  // asks addr2line once for all

// Static __shared__ variables of watched kernels: thread-local ones of this program.
struct SharedVariable {
  uintptr_t offset, bytes;  // in the thread-local block
  bool guard;  // not a variable, but the compiler's note that one is initialised (it makes them for arrays of
               // bf16)
};
std::vector<SharedVariable> shared_variables();

struct ThreadLocals {
  std::byte* begin = nullptr;  // the calling thread's block
  size_t bytes = 0;
};
ThreadLocals thread_locals();

bool is_constant(const void* address);  // in this program's read-only data

}  // namespace lockstep::gpu_watch
