// SPDX-License-Identifier: Apache-2.0
// A file that is written beside its place as NAME.part, and renamed when it is whole.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/files/file_lock.h"

namespace lockstep {

class PartFile {
 public:
  // Opens or creates path + ".part", keeping what it holds, and locks it. Error cannot_create (73).
  explicit PartFile(std::string path);
  ~PartFile();  // leaves the .part file
  PartFile(const PartFile&) = delete;

  const std::string& part() const { return part_; }
  int64_t size() const { return size_; }
  // Error io (74).
  void truncate();
  void append(const void* data, int64_t n);
  void commit();   // fsync, rename, fsync of the folder
  void discard();  // removes the .part file

 private:
  std::string path_, part_;
  FileLock lock_;
  int fd_ = -1;
  int64_t size_ = 0;
};

}  // namespace lockstep
