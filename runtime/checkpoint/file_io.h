// SPDX-License-Identifier: Apache-2.0
// Files that must survive a crash: every call is checked, what is written is fsynced, and what is replaced is
// replaced by a rename, so that a reader sees the old file or the new one, whole.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/files/mapped_file.h"

namespace lockstep {

// What the name of a file or folder begins with until it is whole.
inline constexpr std::string_view kTemporary = ".tmp-";
// And ends with while it makes room for its successor.
inline constexpr std::string_view kOldFolder = "-old";

// errno as an Error at file=path: a full disk, an exceeded quota or size limit and I/O errors are io (74);
// else, what hinders creating a file or folder is cannot_create (73) and anything after that io (74).
enum class IoStage { creating, writing };
[[noreturn]] void throw_io(IoStage stage, std::string_view action, const std::string& path, int error_number);

// The descriptor of a file to write to, made where it is missing; `flags` as open(2) has them. What a name must not lead us
// to write to is refused (73): a link, a file with other names, one that is neither ours nor its folder's owner's, a pipe,
// a device.
int open_output(const std::string& path, int flags);

// A file that is written from its beginning, or to its end. The destructor closes without checks: call sync_and_close() or
// close() when all is written. Errors: cannot_create (73), io (74).
class OutputFile {
 public:
  enum class Existing { emptied, kept };  // what is there already
  explicit OutputFile(std::string path, Existing existing = Existing::emptied);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void write_at(int64_t offset, std::span<const std::byte> bytes);  // what is written goes on where it was
  void cut(int64_t bytes);                                          // leaves so many of a longer file
  void close();
  void sync_and_close();

 private:
  std::string path_;
  int descriptor_;
};

// Creates the folder and its parents, where missing; each folder that got a new name in it is synced. Errors: cannot_create,
// io.
void make_folders(const std::string& path);
// Makes the names in a folder durable.
void sync_folder(const std::string& path);
std::string parent_folder(const std::string& path);  // "." where the path has none

// A name beside `path` that nobody can guess, for what is to become `path`.
std::string temporary_path(const std::string& path);
// `write` is given a temporary path beside `path` and leaves a synced file there, which then replaces `path`.
// Whatever fails, the temporary file is removed and `path` is as it was.
void replace_file(const std::string& path, const std::function<void(const std::string& temporary)>& write);
// Writes a file so that it is seen whole or not at all: temporary name, fsync, rename, fsync of the folder.
void write_file_atomically(const std::string& path, std::string_view text);
// Removes what writers that died have left in a folder under names of temporary_path(). Only for who alone writes there; in a
// folder of many writers, what has not changed for `unchanged`. What a living process has locked stays.
void remove_stale_files(const std::string& folder, std::chrono::seconds unchanged = {});

// Makes a folder where many processes write, and removes from it what has lain under a temporary name for a day.
void make_shared_folder(const std::string& path);
// That a cache's file could not be written costs the next run time and nothing else: a warning where the disk is at fault, else
// (there may be no place for caches) a line in the log.
void log_not_kept(std::string_view what, const Error& error);

}  // namespace lockstep
