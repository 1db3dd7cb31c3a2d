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
  int64_t pid, step, code;
};

std::string rank_file(const std::string& folder, int rank) { return fmt::format("{}/rank-{}", folder, rank); }

}  // namespace

RankReport::RankReport(int rank) : rank_(rank) {
  const char* folder = std::getenv("LOCKSTEP_REPORT");
  if (!folder || ::access(folder, W_OK) != 0) return;  // also on another host
  folder_ = folder;
  file_ = ::open(rank_file(folder_, rank).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const Record r{::getpid(), 0, -1};
  if (file_ >= 0 && ::pwrite(file_, &r, sizeof r, 0) < 0) ::close(file_), file_ = -1;
}

RankReport::~RankReport() {
  if (file_ >= 0) ::close(file_);
}

// A report that cannot be written costs a better message, never the training.
void RankReport::run_folder(const std::string& path) {
  if (folder_.empty() || rank_ != 0) return;
  std::ofstream(folder_ + "/run.tmp") << path;
  ::rename((folder_ + "/run.tmp").c_str(), (folder_ + "/run").c_str());
}

void RankReport::step(int64_t step) {
  if (file_ >= 0 && ::pwrite(file_, &step, sizeof step, offsetof(Record, step)) < 0) return;
}

void RankReport::exit_code(int code) {
  const int64_t c = code;
  if (file_ >= 0 && ::pwrite(file_, &c, sizeof c, offsetof(Record, code)) < 0) return;
}

double RankReport::launcher_seconds() const {
  const char* start = std::getenv("LOCKSTEP_START_NS");
  if (folder_.empty() || !start) return 0;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 - std::strtod(start, nullptr) * 1e-9;
}

RankState read_rank(const std::string& folder, int rank) {
  RankState s;
  const int file = ::open(rank_file(folder, rank).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return s;
  Record r{};
  s.started = ::pread(file, &r, sizeof r, 0) == static_cast<ssize_t>(sizeof r);
  ::close(file);
  s.pid = static_cast<int>(r.pid), s.step = r.step, s.code = s.started ? static_cast<int>(r.code) : -1;
  return s;
}

std::string read_run_folder(const std::string& folder) {
  std::ifstream in(folder + "/run");
  std::string path;
  std::getline(in, path);
  return path;
}

}  // namespace lockstep
