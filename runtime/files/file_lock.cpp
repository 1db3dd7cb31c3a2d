// SPDX-License-Identifier: Apache-2.0
#include "runtime/files/file_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <mutex>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/host_name.h"

namespace lockstep {

LockCall lock_call = ::flock;

namespace {

constexpr std::string_view kPid = "pid ", kOn = " on ";

std::string own_name() { return fmt::format("{}{}{}{}", kPid, ::getpid(), kOn, host_name()); }

// The first line of a lock's file; "" where there is none.
std::string name_in(const std::string& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return "";
  std::array<char, 512> text{};
  const ssize_t size = ::read(descriptor, text.data(), text.size());
  ::close(descriptor);
  const std::string_view all(text.data(), size > 0 ? static_cast<size_t>(size) : 0);
  return std::string(all.substr(0, all.find('\n')));
}

// Whether that process was of this host and is no more. Of another host's nothing is known.
bool is_dead(std::string_view name) {
  if (!name.starts_with(kPid)) return false;
  name.remove_prefix(kPid.size());
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  return error == std::errc() && pid > 0 && name.starts_with(kOn) && name.substr(kOn.size()) == host_name() &&
         ::kill(pid, 0) != 0 && errno == ESRCH;
}

// EBADF: NFS locks only what is open for writing, which no folder is.
bool has_no_flock(int error) {
  return error == ENOLCK || error == ENOTSUP || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL ||
         error == EBADF;
}

void write_name(int descriptor, const std::string& file) {
  const std::string text = own_name() + "\n";
  if (::ftruncate(descriptor, 0) != 0 ||
      ::pwrite(descriptor, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    throw_io(IoStage::writing, "cannot write the lock", file, errno);
}

// -1 where the file is there.
int make_alone(const std::string& file) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor < 0 && errno != EEXIST) throw_io(IoStage::creating, "cannot create the lock", file, errno);
  if (descriptor < 0) return -1;
  try {
    write_name(descriptor, file);
  } catch (const Error&) {
    ::unlink(file.c_str());
    ::close(descriptor);
    throw;
  }
  return descriptor;
}

// Whether `file` was a dead process's and is removed. One at a time looks and removes, since a second one that has looked
// before would remove what the first has made after. `file` is the one to remove by hand where another looks.
bool remove_dead_one(std::string& file) {
  if (!is_dead(name_in(file))) return false;
  const std::string one = file + ".taken";
  const int descriptor = make_alone(one);
  if (descriptor < 0) {
    file = one;
    return false;
  }
  const std::string name = name_in(file);
  const bool dead = is_dead(name);
  if (dead) {
    ::unlink(file.c_str());
    spdlog::warn("the lock {} was left by {}, which is no more: it is taken over", file, name);
  }
  ::unlink(one.c_str());
  ::close(descriptor);
  return dead;
}

}  // namespace

FileLock FileLock::try_lock(const std::string& path) {
  FileLock lock;
  lock.file_ = path;
  // Close-on-exec: a child must not keep what a dead process has locked.
  int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) descriptor = open_output(path, O_RDWR);
  int error = 0;
  do error = lock_call(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  while (error == EINTR);
  if (error == 0) {
    lock.descriptor_ = descriptor;
    return lock;
  }
  ::close(descriptor);
  if (error == EWOULDBLOCK) return lock;
  if (!has_no_flock(error)) throw_io(IoStage::creating, "cannot lock", path, error);
  static std::once_flag once;
  std::call_once(once, [&] {
    spdlog::warn("the file system has no flock for {}: locks are files instead, here {}{}", path, path,
                 kHeldFile);
  });
  lock.make_file();
  return lock;
}

void FileLock::make_file() {
  file_ += kHeldFile;
  is_made_ = true;
  descriptor_ = make_alone(file_);
  if (descriptor_ < 0 && remove_dead_one(file_)) descriptor_ = make_alone(file_);
}

void FileLock::remove_dead(const std::string& path) {
  std::string file = path + std::string(kHeldFile);
  try {
    remove_dead_one(file);
  } catch (const Error&) {
    // It stays where it is.
  }
}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  if (this == &other) return *this;
  release();
  file_ = std::move(other.file_);
  descriptor_ = std::exchange(other.descriptor_, -1);
  is_made_ = std::exchange(other.is_made_, false);
  return *this;
}

void FileLock::release() noexcept {
  if (descriptor_ < 0) return;
  if (is_made_) ::unlink(file_.c_str());
  ::close(std::exchange(descriptor_, -1));
}

void FileLock::sign() {
  LOCKSTEP_ASSERT(descriptor_ >= 0);
  if (!is_made_) write_name(descriptor_, file_);
}

std::string FileLock::holder() const {
  const std::string name = name_in(file_);
  return name.empty() ? "unnamed" : name;
}

std::string FileLock::how_to_remove() const {
  return is_made_ ? fmt::format("where that process is no more, remove {}", file_) : "";
}

}  // namespace lockstep
