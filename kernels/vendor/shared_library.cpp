// SPDX-License-Identifier: Apache-2.0
#include "kernels/vendor/shared_library.h"

#include <dlfcn.h>

namespace lockstep {

// Its symbols are global: cuDNN finds the cuBLASLt that is loaded already.
SharedLibrary::SharedLibrary(std::initializer_list<const char*> files) {
  for (const char* file : files) {
    if ((handle_ = ::dlopen(file, RTLD_NOW | RTLD_GLOBAL))) return;
    problem_ = ::dlerror();
  }
}

void* SharedLibrary::symbol(const char* name) const { return ::dlsym(handle_, name); }

}  // namespace lockstep
