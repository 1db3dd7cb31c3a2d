// SPDX-License-Identifier: Apache-2.0
#include "runtime/files/mapped_file.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <map>
#include <mutex>

#include "runtime/files/path.h"
#include "runtime/files/utf8.h"

namespace lockstep {
namespace {

struct Mapping {
  const std::byte* end;
  std::string path;
};

struct Mappings {
  std::mutex mutex;
  std::map<const std::byte*, Mapping> by_begin;
  std::function<void(const Error&)> then;
  struct sigaction before {};
};
// Kept to the process's end: a thread may read while it ends.
Mappings& mappings() {
  static auto& all = *new Mappings;
  return all;
}

// "": none of ours lies there.
std::string mapped_at(const void* address) {
  const auto* at = static_cast<const std::byte*>(address);
  Mappings& all = mappings();
  const std::lock_guard lock(all.mutex);
  auto after = all.by_begin.upper_bound(at);
  if (after == all.by_begin.begin()) return "";
  const auto& [begin, mapping] = *--after;
  return at < mapping.end ? mapping.path : "";
}

void pass_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction& before = mappings().before;
  if ((before.sa_flags & SA_SIGINFO) != 0)
    before.sa_sigaction(signal, info, context);
  else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
    before.sa_handler(signal);
  else if (::sigaction(signal, &before, nullptr) == 0 && info->si_code <= 0)
    ::raise(signal);  // sent by a process; what an instruction causes it causes again
}

// The thread was reading from the mapping, so it holds no lock that what follows needs: it goes on as code of that thread
// would, and does not return.
void on_bus_error(int signal, siginfo_t* info, void* context) {
  const std::string path = mapped_at(info->si_addr);
  if (path.empty()) return pass_on(signal, info, context);
  static std::atomic<bool> ends{false};
  while (ends.exchange(true)) ::pause();  // another thread's error is told
  const Error error =
      Error(Exit::io, "E_IO", "the file was cut, or cannot be read any more, while it was in use")
          .at("file", path)
          .hint("files in use may be replaced by others of that name, but not changed");
  if (const auto& then = mappings().then)
    then(error);
  else
    std::fputs((shown_lines(error.what()) + "\n").c_str(), stderr);
  ::_exit(error.code());
}

void watch() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGBUS, &action, &mappings().before);
  });
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  watch();
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
  if (size_ == 0) return;
  Mappings& all = mappings();
  const std::lock_guard lock(all.mutex);
  all.by_begin[bytes().data()] = {bytes().data() + size_, path};
}

MappedFile::~MappedFile() {
  if (size_ == 0) return;
  {
    Mappings& all = mappings();
    const std::lock_guard lock(all.mutex);
    all.by_begin.erase(bytes().data());
  }
  ::munmap(address_, size_);
}

void on_lost_mapping(std::function<void(const Error&)> then) { mappings().then = std::move(then); }

}  // namespace lockstep
