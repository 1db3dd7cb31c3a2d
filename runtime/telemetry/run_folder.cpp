// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/run_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/file_lock.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace fs = std::filesystem;
namespace {

// What a run leaves once it has begun. The lock alone is none: it may have died before.
constexpr std::array kTraces{"job.yaml", "plan.json",         "metrics.jsonl", "status.json",
                             "log.txt",  "model.safetensors", "checkpoints"};

bool holds_run(const std::string& path) {
  for (const char* name : kTraces)
    if (is_there(path + "/" + name)) return true;
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

FileLock lock_folder(const std::string& path) {
  FileLock lock = FileLock::try_lock(path + "/.lock");
  if (!lock) {
    const std::string remove = lock.how_to_remove();
    throw Error(Exit::cannot_create, "E_RUN_LOCKED",
                fmt::format("the run folder is in use by another job ({})", lock.holder()))
        .at("file", lock.file())
        .hint(fmt::format("wait for it or choose another folder with --output{}{}",
                          remove.empty() ? "" : "; ", remove));
  }
  lock.sign();
  return lock;
}

// The folder that make_folders(path) would make first; "" where all are there.
std::string outermost_missing(const std::string& path) {
  std::string missing;
  std::error_code none;  // what may not be looked at is there
  for (fs::path at = absolute_path(path); !at.empty() && !fs::exists(at, none) && !none;
       at = at.parent_path())
    missing = at.string();
  return missing;
}

// What a run that died was about to write, in its folder and in those that it keeps there. Under the lock.
void sweep(const std::string& path) {
  remove_stale_files(path);
  for (const std::string& name : names_in(path)) {
    struct stat status {};
    const std::string folder = path + "/" + name;
    if (::lstat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) remove_stale_files(folder);
  }
}

// `exact`, or the highest-numbered run of the job; "" where there is none.
std::string find_run(const std::string& dir, const std::string& job_name, const std::string& exact) {
  if (!exact.empty()) return is_folder(exact) && holds_run(exact) ? exact : "";
  std::string path;
  int64_t highest = 0;
  for (const std::string& name : is_folder(dir) ? names_in(dir) : std::vector<std::string>()) {
    const int64_t number = number_of(name, job_name);
    const std::string run = dir + "/" + name;
    if (number > highest && is_folder(run) && holds_run(run)) highest = number, path = run;
  }
  return path;
}

}  // namespace

RunFolder RunFolder::create(const std::string& dir, const std::string& job_name, const std::string& exact) {
  if (!exact.empty()) {
    const std::string made = outermost_missing(exact);
    make_folders(exact);
    RunFolder folder(exact, made, lock_folder(exact));
    if (holds_run(exact))
      throw Error(Exit::cannot_create, "E_RUN_EXISTS", "the folder holds a run already")
          .at("file", exact)
          .hint("continue it with --resume or choose another folder with --output");
    sweep(exact);
    return folder;
  }
  LOCKSTEP_ASSERT(!job_name.empty() && job_name.find('/') == std::string::npos);
  const std::string made = outermost_missing(dir);
  make_folders(dir);
  int64_t number = 0;
  for (const std::string& name : names_in(dir)) number = std::max(number, number_of(name, job_name));
  // Another job may take the number between listing and creating: then the next one.
  while (true) {
    const std::string path = fmt::format("{}/{}-{:03}", dir, job_name, ++number);
    if (::mkdir(path.c_str(), 0777) == 0) {
      sync_folder(dir);
      return RunFolder(path, made.empty() ? path : made, lock_folder(path));
    }
    if (errno != EEXIST) throw_io(IoStage::creating, "cannot create the run folder", path, errno);
  }
}

bool RunFolder::exists(const std::string& dir, const std::string& job_name, const std::string& exact) {
  return !find_run(dir, job_name, exact).empty();
}

RunFolder RunFolder::open(const std::string& dir, const std::string& job_name, const std::string& exact) {
  const std::string path = find_run(dir, job_name, exact);
  if (path.empty())
    throw Error(Exit::no_input, "E_NO_RUN",
                exact.empty() ? fmt::format("no run of job \"{}\" to resume", job_name)
                              : "no run in this folder to resume")
        .at("file", exact.empty() ? dir : exact)
        .hint("start one without --resume, or say --resume=auto");
  RunFolder folder(path, "", lock_folder(path));
  sweep(path);
  return folder;
}

void discard_run(const std::string& path, const std::string& made) {
  std::error_code ignored;  // what cannot be removed stays
  for (const char* name : kTraces) fs::remove_all(fs::path(path) / name, ignored);
  for (const char* name : {"tensorboard", ".lock", ".lock.held"})
    fs::remove_all(fs::path(path) / name, ignored);
  if (fs::is_directory(path, ignored)) remove_stale_files(path);  // another process may have come first
  if (made.empty()) return;
  // Only empty ones go.
  for (fs::path at = absolute_path(path); at.string().size() >= made.size(); at = at.parent_path())
    if (!fs::remove(at, ignored) || at == at.parent_path()) break;
}

}  // namespace lockstep
