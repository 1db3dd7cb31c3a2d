// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/file_io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/core/error.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace fs = std::filesystem;

void throw_io(IoStage stage, std::string_view action, const std::string& path, int error_number) {
  const bool resources = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG ||
                         error_number == EIO || error_number == EMFILE || error_number == ENFILE;
  const bool creating = stage == IoStage::creating && !resources;
  Error error(creating ? Exit::cannot_create : Exit::io, creating ? "E_CANNOT_CREATE" : "E_IO",
              fmt::format("{}: {}", action, std::strerror(error_number)));
  if (error_number == ENOSPC || error_number == EDQUOT)
    throw std::move(error).at("file", path).hint("make room there, then continue with --resume");
  throw std::move(error).at("file", path);
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_io(IoStage::creating, "cannot create the file", path_, errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(descriptor_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io(IoStage::writing, "cannot write", path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::sync_and_close() {
  // EINVAL: something that cannot be synced, such as a pipe.
  if (::fsync(descriptor_) != 0 && errno != EINVAL) throw_io(IoStage::writing, "cannot sync", path_, errno);
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0) throw_io(IoStage::writing, "cannot close", path_, errno);
}

MappedFile::MappedFile(const std::string& path) {
  const int descriptor = open_file(path);
  struct stat status {};
  int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  if (error == 0) size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) {
    address_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address_ == MAP_FAILED) error = errno, size_ = 0;
  }
  ::close(descriptor);
  if (error != 0) throw cannot_open(path, error);
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(address_, size_);
}

void make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error && !is_folder(path)) error = std::make_error_code(std::errc::not_a_directory);
  if (error) throw_io(IoStage::creating, "cannot create the folder", path, error.value());
}

void sync_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw_io(IoStage::writing, "cannot open the folder", path, errno);
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  if (error != 0 && error != EINVAL) throw_io(IoStage::writing, "cannot sync the folder", path, error);
}

std::string parent_folder(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

void replace_file(const std::string& path, const std::function<void(const std::string&)>& write) {
  static std::atomic<int> counter{
      0};  // two threads may write one file: the watchdog and the trainer, status.json
  const std::string parent = parent_folder(path);
  const std::string temporary =
      fmt::format("{}/{}{}-{}-{}", parent, kTemporary, fs::path(path).filename().string(), ::getpid(),
                  counter.fetch_add(1));
  try {
    write(temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw_io(IoStage::creating, "cannot replace the file", path, errno);
  } catch (Error& error) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(parent);
}

void write_file_atomically(const std::string& path, std::string_view text) {
  replace_file(path, [&](const std::string& temporary) {
    OutputFile file(temporary);
    file.write(text);
    file.sync_and_close();
  });
}

void remove_stale_files(const std::string& folder) {
  for (const std::string& name : names_in(folder))
    if (const std::string path = folder + "/" + name; name.starts_with(kTemporary) && is_file(path))
      ::unlink(path.c_str());  // a leftover that stays does no harm
}

}  // namespace lockstep
