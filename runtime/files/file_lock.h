// SPDX-License-Identifier: Apache-2.0
// A lock on a path that ends with the process that holds it: flock. Where the file system has no flock, a file beside the
// path, PATH.held, which one process alone can make: it names its holder, and what a dead holder has left is taken over.
#pragma once

#include <string>
#include <string_view>

namespace lockstep {

class FileLock {
 public:
  // Locks a folder, or a file, which is made where it is missing. Does not wait. What is no file of our own
  // (open_output), such as a link, is refused. Where another holds it, the lock is false and says who that is. Errors: cannot_create (73), io (74).
  static FileLock try_lock(const std::string& path);
  // Removes PATH.held where its holder is dead and that can be done. For paths that are gone.
  static void remove_dead(const std::string& path);

  FileLock() = default;
  FileLock(FileLock&& other) noexcept { *this = static_cast<FileLock&&>(other); }
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock() { release(); }
  explicit operator bool() const { return descriptor_ >= 0; }

  // Writes "pid P on HOST" into the locked file, for others to read.
  void sign();
  // Of a lock that another holds: what its file says, "unnamed" where that is nothing.
  std::string holder() const;
  // The file that says who holds the lock.
  const std::string& file() const { return file_; }
  // What to do where another holds it and is known to be dead; "" where the lock goes with it.
  std::string how_to_remove() const;

 private:
  void release() noexcept;
  void make_file();  // PATH.held

  std::string file_;
  int descriptor_ = -1;
  bool is_made_ = false;  // file_ is PATH.held
};

inline constexpr std::string_view kHeldFile = ".held";  // behind a path

// ::flock. Tests put there what other file systems answer.
using LockCall = int (*)(int descriptor, int operation);
extern LockCall lock_call;

}  // namespace lockstep
