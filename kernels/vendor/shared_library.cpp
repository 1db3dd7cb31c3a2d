// SPDX-License-Identifier: Apache-2.0
#include "kernels/vendor/shared_library.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include <climits>

namespace lockstep {
namespace {

// Where pip puts libraries: of the active environment, of the user, of the machine.
std::vector<std::string> pip_files(const std::string& name) {
  std::vector<std::string> prefixes;
  if (const char* active = std::getenv("VIRTUAL_ENV")) prefixes.emplace_back(active);
  if (const char* home = std::getenv("HOME")) prefixes.push_back(std::string(home) + "/.local");
  prefixes.insert(prefixes.end(), {"/usr/local", "/usr"});
  std::vector<std::string> files;
  for (const std::string& prefix : prefixes)
    for (const char* packages : {"site-packages", "dist-packages"}) {
      glob_t found{};
      const std::string pattern = prefix + "/lib/python3*/" + packages + "/nvidia/*/lib/" + name;
      if (::glob(pattern.c_str(), 0, nullptr, &found) == 0)
        files.insert(files.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
      ::globfree(&found);
    }
  return files;
}

}  // namespace

SharedLibrary::SharedLibrary(std::initializer_list<const char*> files) {
  for (const char* file : files)
    if (load(file)) return;
  for (const char* file : files)
    if (!std::strchr(file, '/')) {
      for (const std::string& found : pip_files(file))
        if (load(found)) return;
      problem_ +=
          "; " + std::string(file) + ": in no folder of pip's nvidia packages (VIRTUAL_ENV, ~/.local, /usr)";
    }
}

// Its symbols are global: cuDNN finds the cuBLASLt that is loaded already.
bool SharedLibrary::load(const std::string& file) {
  if ((handle_ = ::dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL))) return true;
  problem_ += (problem_.empty() ? "" : "; ") + std::string(::dlerror());
  return false;
}

void* SharedLibrary::symbol(const char* name) const { return ::dlsym(handle_, name); }

std::string SharedLibrary::folder() const {
  char folder[PATH_MAX] = ".";
  if (handle_) ::dlinfo(handle_, RTLD_DI_ORIGIN, folder);
  return folder;
}

}  // namespace lockstep
