// SPDX-License-Identifier: Apache-2.0
// In place of kernels/vendor/shared_library.cpp: the libraries that are looked for at run time are the
// stand-ins of this executable. LOCKSTEP_STANDIN_LACKS names a library, or an entry point, that isn't to be
// had.
#include <cstdlib>
#include <map>
#include <string_view>

#include "kernels/vendor/cublaslt.h"
#include "kernels/vendor/cudnn.h"
#include "kernels/vendor/shared_library.h"
#include "runtime/cuda/nccl.h"

namespace lockstep {
namespace {

bool lacks(std::string_view what) {
  const char* set = std::getenv("LOCKSTEP_STANDIN_LACKS");
  return set && what.find(set) != std::string_view::npos;
}

}  // namespace

SharedLibrary::SharedLibrary(std::initializer_list<const char*> files) {
  for (const char* file : files)
    if (lacks(file)) {
      problem_ = std::string(file) + ": cannot open shared object file";
      return;
    }
  handle_ = this;
}

std::string SharedLibrary::folder() const { return "."; }

void* SharedLibrary::symbol(const char* name) const {
#define LOCKSTEP_ENTRY(name) {#name, reinterpret_cast<void*>(&::name)},
  static const std::map<std::string_view, void*> entries = {LOCKSTEP_CUDNN_FUNCTIONS(
      LOCKSTEP_ENTRY) LOCKSTEP_CUBLASLT_FUNCTIONS(LOCKSTEP_ENTRY) LOCKSTEP_NCCL_FUNCTIONS(LOCKSTEP_ENTRY)};
#undef LOCKSTEP_ENTRY
  return lacks(name) ? nullptr : entries.at(name);
}

}  // namespace lockstep
