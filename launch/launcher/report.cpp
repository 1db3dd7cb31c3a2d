// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/report.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

struct Record {
  int64_t step, code;
};

std::string rank_file(const std::string& folder, int rank) { return fmt::format("{}/rank-{}", folder, rank); }

}  // namespace

RankReport::RankReport(int rank) : rank_(rank) {
  const char* folder = std::getenv("LOCKSTEP_REPORT");
  if (!folder || ::access(folder, W_OK) != 0) return;  // also on another host
  folder_ = folder;
  file_ = ::open(rank_file(folder_, rank).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  // The lock ends with this process, however it ends, and tells the launcher its pid as long as it lives.
  struct flock lock {};
  lock.l_type = F_WRLCK;
  const Record r{-1, -1};
  if (file_ >= 0 && (::fcntl(file_, F_SETLK, &lock) != 0 || ::pwrite(file_, &r, sizeof r, 0) < 0))
    ::close(file_), file_ = -1;
}

bool RankReport::launched() { return std::getenv("LOCKSTEP_REPORT") != nullptr; }

RankReport::~RankReport() {
  if (file_ >= 0) ::close(file_);
}

// A report that cannot be written costs a better message, never the training.
void RankReport::run_folder(const std::string& path, bool is_new, const std::string& made) {
  if (folder_.empty() || rank_ != 0) return;
  std::ofstream(folder_ + "/run.tmp") << path << '\n' << (is_new ? "new" : "") << '\n' << made << '\n';
  ::rename((folder_ + "/run.tmp").c_str(), (folder_ + "/run").c_str());
}

void RankReport::step(int64_t step) {
  step_ = step;
  if (file_ >= 0 && ::pwrite(file_, &step, sizeof step, offsetof(Record, step)) < 0) return;
}

bool RankReport::exit_code(int code) {
  const int64_t c = code;
  return file_ >= 0 &&
         ::pwrite(file_, &c, sizeof c, offsetof(Record, code)) == static_cast<ssize_t>(sizeof c);
}

double RankReport::launcher_seconds() const {
  const char* start = std::getenv("LOCKSTEP_START_NS");
  if (folder_.empty() || !start) return 0;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 -
         std::strtod(start, nullptr) * 1e-9;
}

RankState read_rank(const std::string& folder, int rank) {
  RankState s;
  const int file = ::open(rank_file(folder, rank).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return s;
  Record r{};
  s.started = ::pread(file, &r, sizeof r, 0) == static_cast<ssize_t>(sizeof r);
  if (s.started) s.step = r.step, s.code = static_cast<int>(r.code);
  struct flock lock {};
  lock.l_type = F_RDLCK;
  if (::fcntl(file, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK) s.pid = lock.l_pid;
  ::close(file);
  return s;
}

ReportedRun read_run_folder(const std::string& folder) {
  std::ifstream in(folder + "/run");
  ReportedRun run;
  std::string is_new;
  std::getline(in, run.path);
  std::getline(in, is_new);
  std::getline(in, run.made);
  run.is_new = is_new == "new";
  return run;
}

}  // namespace lockstep
