// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/report.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

// A rank's record: a number for each of these words.
enum Field : size_t { kStep, kCode, kMet, kPeerLost, kRemote, kFields };
using Record = std::array<int64_t, kFields>;
constexpr std::array<std::string_view, kFields> kWords = {"step", "code", "met", "peer_lost", "remote"};
constexpr Record kBlank = {-1, -1, 0, 0, 0};
constexpr std::string_view kReportWord = "lockstep-report ";

std::string rank_file(const std::string& folder, int rank) { return fmt::format("{}/rank-{}", folder, rank); }

bool put(int file, size_t field, int64_t value) {
  return ::pwrite(file, &value, sizeof value, static_cast<off_t>(field * sizeof value)) ==
         static_cast<ssize_t>(sizeof value);
}

bool get(int file, Record& r) { return ::pread(file, &r, sizeof r, 0) == static_cast<ssize_t>(sizeof r); }

}  // namespace

RankReport::RankReport(int rank) : rank_(rank) {
  const char* folder = std::getenv("LOCKSTEP_REPORT");
  if (!folder) return;
  remote_ = ::access(folder, W_OK) != 0;
  if (remote_) {
    tell(kRemote, 1);
    return;
  }
  folder_ = folder;
  file_ = ::open(rank_file(folder_, rank).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  // The lock ends with this process, however it ends, and tells the launcher its pid as long as it lives.
  struct flock lock {};
  lock.l_type = F_WRLCK;
  if (file_ >= 0 && (::fcntl(file_, F_SETLK, &lock) != 0 || ::pwrite(file_, &kBlank, sizeof kBlank, 0) < 0))
    ::close(file_), file_ = -1;
}

bool RankReport::launched() { return std::getenv("LOCKSTEP_REPORT") != nullptr; }

RankReport::~RankReport() {
  if (file_ >= 0) ::close(file_);
}

// A report that cannot be written costs a better message, never the training.
bool RankReport::tell(size_t field, int64_t value) {
  if (remote_) {
    const std::string line = fmt::format("{}{} {} {}\n", kReportWord, rank_, kWords[field], value);
    if (::write(2, line.data(), line.size()) < 0) return false;
  }
  return file_ >= 0 && put(file_, field, value);
}

void RankReport::met() { tell(kMet, 1); }

void RankReport::run_folder(const std::string& path, bool is_new, const std::string& made) {
  if (folder_.empty() || rank_ != 0) return;
  std::ofstream(folder_ + "/run.tmp") << path << '\n' << (is_new ? "new" : "") << '\n' << made << '\n';
  ::rename((folder_ + "/run.tmp").c_str(), (folder_ + "/run").c_str());
}

void RankReport::step(int64_t step) {
  step_ = step;
  if (remote_) {  // not a line for each
    const auto now = std::chrono::steady_clock::now();
    if (now - step_told_ < std::chrono::seconds(2)) return;
    step_told_ = now;
  }
  tell(kStep, step);
}

void RankReport::peer_lost() { tell(kPeerLost, 1); }

bool RankReport::exit_code(int code) { return tell(kCode, code); }

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
  s.started = get(file, r);
  if (s.started) {
    s.step = r[kStep], s.code = static_cast<int>(r[kCode]);
    s.met = r[kMet] != 0, s.peer_lost = r[kPeerLost] != 0, s.remote = r[kRemote] != 0;
  }
  struct flock lock {};
  lock.l_type = F_RDLCK;
  if (::fcntl(file, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK) s.pid = lock.l_pid;
  ::close(file);
  return s;
}

bool take_report(const std::string& folder, std::string_view line) {
  const size_t at = line.find(kReportWord);
  if (at == std::string_view::npos) return false;
  std::istringstream words{std::string(line.substr(at + kReportWord.size()))};
  int rank = -1;
  std::string word;
  int64_t value = 0;
  words >> rank >> word >> value;
  const auto field = static_cast<size_t>(std::ranges::find(kWords, word) - kWords.begin());
  if (!words || rank < 0 || field == kFields) return false;
  const int file = ::open(rank_file(folder, rank).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return true;
  Record r = kBlank;
  get(file, r);
  r[kRemote] = 1, r[field] = value;
  if (::pwrite(file, &r, sizeof r, 0) < 0) ::unlink(rank_file(folder, rank).c_str());
  ::close(file);
  return true;
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
