// SPDX-License-Identifier: Apache-2.0
#include "kernels/vendor/shared_library.h"

#include <dlfcn.h>

#include <climits>

namespace lockstep {

// Its symbols are global: cuDNN finds the cuBLASLt that is loaded already.
SharedLibrary::SharedLibrary(std::initializer_list<const char*> files) {
  for (const char* file : files) {
    if ((handle_ = ::dlopen(file, RTLD_NOW | RTLD_GLOBAL))) return;
    problem_ = ::dlerror();
  }
}

void* SharedLibrary::symbol(const char* name) const { return ::dlsym(handle_, name); }

std::string SharedLibrary::folder() const {
  char folder[PATH_MAX] = ".";
  if (handle_) ::dlinfo(handle_, RTLD_DI_ORIGIN, folder);
  return folder;
}

}  // namespace lockstep
