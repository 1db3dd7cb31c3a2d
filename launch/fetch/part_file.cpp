#include "launch/fetch/part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

Error failed(Exit exit, const std::string& path, int error_number) {
  return Error(exit, "E_DATA_WRITE", std::strerror(error_number)).at("file", path);
}

}  // namespace

PartFile::PartFile(std::string path) : path_(std::move(path)), part_(path_ + ".part") {
  fd_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd_ < 0) throw failed(Exit::cannot_create, part_, errno);
  struct stat st {};
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 || ::fstat(fd_, &st) != 0 || ::lseek(fd_, 0, SEEK_END) < 0) {
    const int why = errno;
    ::close(fd_);
    if (why == EWOULDBLOCK)
      throw Error(Exit::cannot_create, "E_DATA_LOCKED", "another process is downloading this file")
          .at("file", part_);
    throw failed(Exit::cannot_create, part_, why);
  }
  size_ = st.st_size;
}

PartFile::~PartFile() {
  if (fd_ >= 0) ::close(fd_);
}

void PartFile::truncate() {
  if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) throw failed(Exit::io, part_, errno);
  size_ = 0;
}

void PartFile::append(const void* data, int64_t n) {
  const auto* p = static_cast<const char*>(data);
  while (n > 0) {
    const ssize_t done = ::write(fd_, p, static_cast<size_t>(n));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw failed(Exit::io, part_, errno);
    p += done;
    n -= done;
    size_ += done;
  }
}

void PartFile::commit() {
  if (::fsync(fd_) != 0 || ::rename(part_.c_str(), path_.c_str()) != 0) throw failed(Exit::io, part_, errno);
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int why = errno;
  if (fd >= 0) ::close(fd);
  if (!synced) throw failed(Exit::io, folder, why);
}

void PartFile::discard() {
  if (::unlink(part_.c_str()) != 0) throw failed(Exit::io, part_, errno);
}

void create_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && !std::filesystem::is_directory(folder, error))
    error = std::make_error_code(std::errc::not_a_directory);
  if (error) throw failed(Exit::cannot_create, folder, error.value());
}

}  // namespace lockstep
