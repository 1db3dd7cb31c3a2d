// SPDX-License-Identifier: Apache-2.0
// Files as memory. What another process cuts off a mapped file, or what a failing disk does not deliver, is a bus error
// (SIGBUS) where it is read: it becomes an Error that names the file.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "kernels/core/error.h"

namespace lockstep {

// A whole file, read-only. Errors: no_input (66) where it is not there or no regular file, no_permission (77), io (74).
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(address_), size_}; }
  std::string_view text() const { return {static_cast<const char*>(address_), size_}; }

 private:
  void* address_ = nullptr;
  size_t size_ = 0;
};

// What to do with the Error (io, 74) before the process ends with its code; without, it is written to stderr. It is called
// by the thread that read: it must not throw, nor wait for that thread.
void on_lost_mapping(std::function<void(const Error&)> then);

}  // namespace lockstep
