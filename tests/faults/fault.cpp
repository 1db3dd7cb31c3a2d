// SPDX-License-Identifier: Apache-2.0
// A library for LD_PRELOAD that stands between a program and its disk. Calls that change what lies below a folder are counted;
// one of them fails, ends the process, or all of them are slow. files.py is who uses it.
//
//   FAULT_FOLDER   below which calls count; an absolute path
//   FAULT_AT       the number of the call: from 1 on
//   FAULT_DO       eio: that call fails; full: it and all that need room after it fail with ENOSPC; kill: SIGKILL in its place,
//                  where it is a write in its middle; slow: every call waits FAULT_MS milliseconds first
//   FAULT_LOG      a line for each call that counts: what happened to it ("ok", "eio", ...), its name, its path
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdlib>
#include <string>

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

struct Plan {
  std::string folder = variable("FAULT_FOLDER") + "/", action = variable("FAULT_DO"),
              log = variable("FAULT_LOG");
  long at = std::atol(variable("FAULT_AT").c_str());
  long milliseconds = std::atol(variable("FAULT_MS").c_str());
};
const Plan& plan() {
  static const Plan& p = *new Plan;  // also for calls while the process ends
  return p;
}

std::atomic<long> calls{0};

enum class Needs { nothing, room };

bool counts(const std::string& path) {
  return (path + "/").compare(0, plan().folder.size(), plan().folder) == 0;
}

std::string absolute(int folder, const char* path) {
  if (path[0] == '/') return path;
  char at[PATH_MAX] = {};
  const std::string link = folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/" + std::to_string(folder);
  return ::readlink(link.c_str(), at, sizeof at - 1) > 0 ? std::string(at) + "/" + path : path;
}

std::string path_of(int descriptor) {
  char path[PATH_MAX] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  return ::readlink(link.c_str(), path, sizeof path - 1) > 0 ? path : "";
}

void note(const char* what, const char* name, const std::string& path) {
  if (plan().log.empty()) return;
  const std::string line = std::string(what) + " " + name + " " + path + "\n";
  const int file = static_cast<int>(
      ::syscall(SYS_openat, AT_FDCWD, plan().log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (file < 0) return;
  if (::syscall(SYS_write, file, line.data(), line.size()) < 0) std::abort();
  ::syscall(SYS_close, file);
}

// Whether the call goes on. `half` does a part of it.
template <class Half>
bool goes_on(const char* name, const std::string& path, Needs needs, Half&& half) {
  if (!counts(path)) return true;
  const long n = ++calls;
  const Plan& p = plan();
  if (p.action == "slow") ::usleep(static_cast<useconds_t>(p.milliseconds * 1000));
  const bool now = n == p.at;
  if (p.action == "kill" && now) {
    note("kill", name, path);
    half();
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
  }
  if (p.action == "eio" && now) {
    note("eio", name, path);
    errno = EIO;
    return false;
  }
  if (p.action == "full" && p.at > 0 && n >= p.at && needs == Needs::room) {
    note("full", name, path);
    half();
    errno = ENOSPC;
    return false;
  }
  note("ok", name, path);
  return true;
}
bool goes_on(const char* name, const std::string& path, Needs needs) {
  return goes_on(name, path, needs, [] {});
}

bool changes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0; }

int open_at(const char* name, int folder, const char* path, int flags, mode_t mode) {
  if (changes(flags) && !goes_on(name, absolute(folder, path), Needs::room)) return -1;
  return static_cast<int>(::syscall(SYS_openat, folder, path, flags, mode));
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

}  // namespace

#define WITH_MODE(call)                          \
  va_list arguments;                             \
  va_start(arguments, flags);                    \
  const mode_t mode = mode_of(flags, arguments); \
  va_end(arguments);                             \
  return call

extern "C" {

int open(const char* path, int flags, ...) { WITH_MODE(open_at("open", AT_FDCWD, path, flags, mode)); }
int open64(const char* path, int flags, ...) { WITH_MODE(open_at("open", AT_FDCWD, path, flags, mode)); }
int openat(int folder, const char* path, int flags, ...) {
  WITH_MODE(open_at("open", folder, path, flags, mode));
}
int openat64(int folder, const char* path, int flags, ...) {
  WITH_MODE(open_at("open", folder, path, flags, mode));
}

ssize_t write(int descriptor, const void* data, size_t size) {
  const auto half = [&] { ::syscall(SYS_write, descriptor, data, size / 2); };
  if (descriptor > 2 && !goes_on("write", path_of(descriptor), Needs::room, half)) return -1;
  return ::syscall(SYS_write, descriptor, data, size);
}
ssize_t pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  const auto half = [&] { ::syscall(SYS_pwrite64, descriptor, data, size / 2, offset); };
  if (!goes_on("write", path_of(descriptor), Needs::room, half)) return -1;
  return ::syscall(SYS_pwrite64, descriptor, data, size, offset);
}
ssize_t pwrite64(int descriptor, const void* data, size_t size, off64_t offset) {
  return pwrite(descriptor, data, size, offset);
}

int fsync(int descriptor) {
  if (!goes_on("fsync", path_of(descriptor), Needs::nothing)) return -1;
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}
int ftruncate(int descriptor, off_t size) noexcept {
  if (!goes_on("ftruncate", path_of(descriptor), Needs::nothing)) return -1;
  return static_cast<int>(::syscall(SYS_ftruncate, descriptor, size));
}
int ftruncate64(int descriptor, off64_t size) noexcept { return ftruncate(descriptor, size); }

int mkdir(const char* path, mode_t mode) noexcept {
  if (!goes_on("mkdir", absolute(AT_FDCWD, path), Needs::room)) return -1;
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int rename(const char* from, const char* to) noexcept {
  if (!goes_on("rename", absolute(AT_FDCWD, to), Needs::nothing)) return -1;
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  if (!goes_on("rename", absolute(to_folder, to), Needs::nothing)) return -1;
  return static_cast<int>(::syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}
int unlink(const char* path) noexcept {
  if (!goes_on("unlink", absolute(AT_FDCWD, path), Needs::nothing)) return -1;
  return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  if (!goes_on("unlink", absolute(folder, path), Needs::nothing)) return -1;
  return static_cast<int>(::syscall(SYS_unlinkat, folder, path, flags));
}

}  // extern "C"
