// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/file_io.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "runtime/comm/whereabouts.h"
#include "runtime/files/file_lock.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace fs = std::filesystem;

namespace {

// A name of temporary_path(), and what is made beside it.
bool is_temporary(std::string_view name) {
  for (const std::string_view end : {kHeldFile, kOldFolder})
    if (name.ends_with(end)) name.remove_suffix(end.size());
  const size_t number = name.rfind('-') + 1;
  return name.starts_with(kTemporary) && number > kTemporary.size() && number < name.size() &&
         name.find_first_not_of("0123456789abcdef", number) == std::string_view::npos;
}

}  // namespace

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

int open_output(const std::string& path, int flags) {
  const auto refuse = [&](const std::string& why) {
    return Error(Exit::cannot_create, "E_CANNOT_CREATE", fmt::format("cannot write to it: {}", why))
        .at("file", path)
        .hint("remove it, or put a copy in its place");
  };
  // O_NONBLOCK: without it, opening a pipe waits for who reads from it.
  const int descriptor =
      ::open(path.c_str(), flags | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0666);
  if (descriptor < 0 && errno == ELOOP) throw refuse("it is a link");
  if (descriptor < 0 && errno == ENXIO) throw refuse(why_no_input(ENXIO));
  if (descriptor < 0) throw_io(IoStage::creating, "cannot create the file", path, errno);
  struct stat file {
  }, folder{};
  const int error = ::fstat(descriptor, &file) == 0 ? 0 : errno;
  std::string why;
  if (error == 0 && !S_ISREG(file.st_mode))
    why = why_no_input(kIsNoFile);
  else if (error == 0 && file.st_nlink > 1)
    why = fmt::format("it has {} names (hard links), and all of them would change", file.st_nlink);
  else if (error == 0 && file.st_uid != ::geteuid() &&
           (::stat(parent_folder(path).c_str(), &folder) != 0 || file.st_uid != folder.st_uid))
    why = fmt::format("it belongs to another user (uid {})", file.st_uid);
  if (error == 0 && why.empty()) return descriptor;
  ::close(descriptor);
  if (error != 0) throw_io(IoStage::creating, "cannot look at the file", path, error);
  throw refuse(why);
}

OutputFile::OutputFile(std::string path, Existing existing)
    : path_(std::move(path)),
      descriptor_(open_output(path_, existing == Existing::kept ? O_WRONLY | O_APPEND : O_WRONLY)) {
  if (existing == Existing::kept) return;
  try {
    cut(0);
  } catch (const Error&) {
    ::close(descriptor_);
    throw;
  }
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
    whereabouts().bytes_written += n;
  }
}

void OutputFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io(IoStage::writing, "cannot write", path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

void OutputFile::cut(int64_t bytes) {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0 ||
      (status.st_size > bytes && ::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0))
    throw_io(IoStage::writing, "cannot cut the file", path_, errno);
}

void OutputFile::close() {
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0) throw_io(IoStage::writing, "cannot close", path_, errno);
}

void OutputFile::sync_and_close() {
  // EINVAL: a file system that cannot sync.
  if (::fsync(descriptor_) != 0 && errno != EINVAL) throw_io(IoStage::writing, "cannot sync", path_, errno);
  close();
}

void sync_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0 && errno == EACCES) return;  // one may write there, but not read, which syncing needs
  if (descriptor < 0) throw_io(IoStage::writing, "cannot open the folder", path, errno);
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  if (error != 0 && error != EINVAL) throw_io(IoStage::writing, "cannot sync the folder", path, error);
}

namespace {

bool is_there_as_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// errno, or 0 where the folder is there. Each name that it makes is synced once.
int make_folder(const std::string& path) {
  if (is_there_as_folder(path)) return 0;
  const std::string parent = parent_folder(path);
  if (parent != path)
    if (const int error = make_folder(parent)) return error;
  if (::mkdir(path.c_str(), 0777) != 0) {
    const int error = errno;
    return error == EEXIST && is_there_as_folder(path) ? 0 : error == EEXIST ? ENOTDIR : error;
  }
  sync_folder(parent);
  return 0;
}

}  // namespace

void make_folders(const std::string& path) {
  if (const int error = make_folder(path))
    throw_io(IoStage::creating, "cannot create the folder", path, error);
}

std::string parent_folder(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string temporary_path(const std::string& path) {
  uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number)
    throw_io(IoStage::creating, "cannot make up a name", path, errno);
  return fmt::format("{}/{}{}-{:016x}", parent_folder(path), kTemporary, fs::path(path).filename().string(),
                     number);
}

void replace_file(const std::string& path, const std::function<void(const std::string&)>& write) {
  const std::string temporary = temporary_path(path);
  try {
    write(temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw_io(IoStage::creating, "cannot replace the file", path, errno);
  } catch (const Error& error) {
    ::unlink(temporary.c_str());
    // Whoever reads it knows the file by its own name.
    Error named(error.exit(), error.id(), error.message());
    for (const auto& [key, value] : error.places()) named.add_place(key, value == temporary ? path : value);
    if (!error.hint().empty()) named.set_hint(error.hint());
    throw named;
  }
  sync_folder(parent_folder(path));
}

void write_file_atomically(const std::string& path, std::string_view text) {
  replace_file(path, [&](const std::string& temporary) {
    OutputFile file(temporary);
    file.write(text);
    file.sync_and_close();
  });
}

void remove_stale_files(const std::string& folder, std::chrono::seconds unchanged) {
  try {
    for (const std::string& name : names_in(folder)) {
      const std::string path = folder + "/" + name;
      struct stat status {};
      if (!is_temporary(name) || ::lstat(path.c_str(), &status) != 0) continue;
      // Without an age no clock is asked: the file system's may be ahead of time()'s. On Linux 6.13 and newer it
      // is by up to a tick, so that a file of this moment can be of the next second.
      if (unchanged.count() > 0 && std::time(nullptr) - status.st_mtime < unchanged.count()) continue;
      if (S_ISDIR(status.st_mode)) {
        const FileLock lock = FileLock::try_lock(path);
        std::error_code ignored;
        if (lock) fs::remove_all(path, ignored);
      } else if (name.ends_with(kHeldFile)) {
        // A lock's, whose holder died between the folder's end and its release.
        FileLock::remove_dead(path.substr(0, path.size() - kHeldFile.size()));
      } else {
        ::unlink(path.c_str());
      }
    }
  } catch (const Error&) {
    // What may not be touched stays, and does no harm.
  }
}

void make_shared_folder(const std::string& path) {
  make_folders(path);
  remove_stale_files(path, std::chrono::hours(24));
}

void log_not_kept(std::string_view what, const Error& error) {
  spdlog::log(error.exit() == Exit::io ? spdlog::level::warn : spdlog::level::info,
              "{} is not kept for the next run: {}", what, error.what());
}

}  // namespace lockstep
