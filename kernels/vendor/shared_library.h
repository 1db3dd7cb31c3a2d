// SPDX-License-Identifier: Apache-2.0
// Libraries that are loaded when first needed: the program starts, and quickly, with and without them
// (libcublasLt alone is half a gigabyte).
#pragma once

#include <initializer_list>
#include <string>

namespace lockstep {

class SharedLibrary {
 public:
  // The first of `files` that loads: paths, or names that the loader looks for; then those names in the folders
  // of pip's nvidia packages. It stays loaded.
  explicit SharedLibrary(std::initializer_list<const char*> files);
  bool loaded() const { return handle_ != nullptr; }
  const std::string& problem() const {
    return problem_;
  }                                         // why none loads: each place, in the loader's words
  void* symbol(const char* name) const;     // null where the library lacks it
  void* handle() const { return handle_; }  // dlopen's

 private:
  bool load(const std::string& file);

  void* handle_ = nullptr;
  std::string problem_;
};

}  // namespace lockstep
