// SPDX-License-Identifier: Apache-2.0
#include "launch/fetch/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "kernels/core/error.h"
#include "runtime/checkpoint/file_io.h"

namespace lockstep {
PartFile::PartFile(std::string path) : path_(std::move(path)), part_(path_ + ".part") {
  lock_ = FileLock::try_lock(part_);
  if (!lock_)
    throw Error(Exit::cannot_create, "E_DATA_LOCKED", "another process is downloading this file")
        .at("file", lock_.file())
        .hint(lock_.how_to_remove());
  fd_ = open_output(part_, O_RDWR);
  struct stat st {};
  if (::fstat(fd_, &st) != 0 || ::lseek(fd_, 0, SEEK_END) < 0) {
    const int why = errno;
    ::close(fd_);
    throw_io(IoStage::creating, "open", part_, why);
  }
  size_ = st.st_size;
}

PartFile::~PartFile() {
  if (fd_ >= 0) ::close(fd_);
}

void PartFile::truncate() {
  if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0)
    throw_io(IoStage::writing, "truncate", part_, errno);
  size_ = 0;
}

void PartFile::append(const void* data, int64_t n) {
  const auto* p = static_cast<const char*>(data);
  while (n > 0) {
    const ssize_t done = ::write(fd_, p, static_cast<size_t>(n));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw_io(IoStage::writing, "write", part_, errno);
    p += done;
    n -= done;
    size_ += done;
  }
}

void PartFile::commit() {
  if (::fsync(fd_) != 0) throw_io(IoStage::writing, "sync", part_, errno);
  if (::rename(part_.c_str(), path_.c_str()) != 0) throw_io(IoStage::writing, "rename", part_, errno);
  sync_folder(parent_folder(path_));
}

void PartFile::discard() {
  if (::unlink(part_.c_str()) != 0) throw_io(IoStage::writing, "remove", part_, errno);
}

}  // namespace lockstep
