// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/checkpoint/file_io.h"

namespace lockstep {
namespace fs = std::filesystem;
namespace {

// What a run leaves once it has begun. The lock alone is none: it may have died before.
constexpr std::array kTraces{"job.yaml", "plan.json",         "metrics.jsonl", "status.json",
                             "log.txt",  "model.safetensors", "checkpoints"};

bool holds_run(const std::string& path) {
  for (const char* name : kTraces)
    if (fs::exists(fs::path(path) / name)) return true;
  return false;
}

// The number in "<job_name>-<number>"; 0 where the name is not of that form.
int64_t number_of(const std::string& name, const std::string& job_name) {
  if (!name.starts_with(job_name + "-")) return 0;
  int64_t number = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + job_name.size() + 1, end, number);
  return error == std::errc() && stop == end && number > 0 ? number : 0;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

// The descriptor that holds RUN/.lock. Close-on-exec: a child must not keep a dead run locked.
int lock_folder(const std::string& path) {
  const std::string file = path + "/.lock";
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_io(IoStage::creating, "cannot create the lock", file, errno);
  const auto fail = [&](int error, std::string_view action) {
    ::close(descriptor);
    throw_io(IoStage::creating, action, file, error);
  };
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) fail(errno, "cannot lock");
    std::array<char, 512> owner{};
    const ssize_t size = ::pread(descriptor, owner.data(), owner.size() - 1, 0);
    ::close(descriptor);
    std::string text(owner.data(), size > 0 ? static_cast<size_t>(size) : 0);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    throw Error(Exit::cannot_create, "E_RUN_LOCKED",
                fmt::format("the run folder is in use by another job ({})", text.empty() ? "unnamed" : text))
        .at("file", file)
        .hint("wait for it or choose another folder with --output");
  }
  const std::string owner = fmt::format("pid {} on {}\n", ::getpid(), host_name());
  if (::ftruncate(descriptor, 0) != 0 ||
      ::pwrite(descriptor, owner.data(), owner.size(), 0) != static_cast<ssize_t>(owner.size()))
    fail(errno, "cannot write the lock");
  return descriptor;
}

}  // namespace

RunFolder RunFolder::create(const std::string& dir, const std::string& job_name, const std::string& exact) {
  if (!exact.empty()) {
    make_folders(exact);
    RunFolder folder(exact, lock_folder(exact));
    if (holds_run(exact))
      throw Error(Exit::cannot_create, "E_RUN_EXISTS", "the folder holds a run already")
          .at("file", exact)
          .hint("continue it with --resume or choose another folder with --output");
    return folder;
  }
  LOCKSTEP_ASSERT(!job_name.empty() && job_name.find('/') == std::string::npos);
  make_folders(dir);
  int64_t number = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error))
    number = std::max(number, number_of(entry.path().filename(), job_name));
  if (error) throw_io(IoStage::creating, "cannot list the folder", dir, error.value());
  // Another job may take the number between listing and creating: then the next one.
  while (true) {
    const std::string path = fmt::format("{}/{}-{:03}", dir, job_name, ++number);
    if (::mkdir(path.c_str(), 0777) == 0) return RunFolder(path, lock_folder(path));
    if (errno != EEXIST) throw_io(IoStage::creating, "cannot create the run folder", path, errno);
  }
}

RunFolder RunFolder::open(const std::string& dir, const std::string& job_name, const std::string& exact) {
  std::string path = exact;
  if (exact.empty()) {
    int64_t highest = 0;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(dir, error)) {
      const int64_t number = number_of(entry.path().filename(), job_name);
      if (number > highest && entry.is_directory(error) && holds_run(entry.path())) {
        highest = number;
        path = entry.path();
      }
    }
    if (highest == 0)
      throw Error(Exit::no_input, "E_NO_RUN", fmt::format("no run of job \"{}\" to resume", job_name))
          .at("file", dir)
          .hint("start one without --resume");
  } else if (!fs::is_directory(exact) || !holds_run(exact)) {
    throw Error(Exit::no_input, "E_NO_RUN", "no run in this folder to resume")
        .at("file", exact)
        .hint("start one without --resume");
  }
  RunFolder folder(path, lock_folder(path));
  remove_stale_files(path);
  return folder;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

RunFolder& RunFolder::operator=(RunFolder&& other) noexcept {
  if (this != &other) {
    if (lock_ >= 0) ::close(lock_);
    path_ = std::move(other.path_);
    lock_ = std::exchange(other.lock_, -1);
  }
  return *this;
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

}  // namespace lockstep
