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
  // Why none loads: each place, in the loader's words.
  const std::string& problem() const { return problem_; }
  void* symbol(const char* name) const;     // null where the library lacks it
  void* handle() const { return handle_; }  // dlopen's
  std::string folder() const;               // where it lies

 private:
  bool load(const std::string& file);

  void* handle_ = nullptr;
  std::string problem_;
};

}  // namespace lockstep
