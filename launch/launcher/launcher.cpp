// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "kernels/core/error.h"
#include "launch/launcher/hosts.h"
#include "launch/launcher/mpirun.h"
#include "launch/launcher/mpirun_noise.h"
#include "launch/launcher/outcome.h"
#include "launch/launcher/own_folder.h"
#include "launch/launcher/report.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/say.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// Longest wait for ranks on other hosts to be ready for signals, which nobody can see from here.
constexpr auto kStartup = 30s;
// mpirun takes a second to end the other ranks when one has ended. Open MPI 4.1.4 may get stuck in that, if
// the rank was killed while it connected: then the launcher does it.
constexpr auto kMpirunStuck = 3s;

// Where temporary files go, for mpirun too: it has its own below $TMPDIR. A folder that is not there, as a cluster's
// node-local one may be, is no reason to stop.
std::string temporary_folder() {
  const char* set = std::getenv("TMPDIR");
  if (set == nullptr || *set == '\0') return "/tmp";
  if (::access(set, W_OK | X_OK) == 0 && is_folder(set)) return absolute_path(set);
  say(stderr, fmt::format("warning: TMPDIR={} is no folder that can be written to; /tmp is used\n", set));
  ::setenv("TMPDIR", "/tmp", 1);
  return "/tmp";
}

// SIGINT, SIGTERM and SIGCHLD as a descriptor to poll.
class Signals {
 public:
  Signals() {
    sigset_t watched;
    sigemptyset(&watched);
    for (int s : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&watched, s);
    ::sigprocmask(SIG_BLOCK, &watched, &before_);
    descriptor_ = ::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~Signals() {
    ::close(descriptor_);
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  int descriptor() const { return descriptor_; }
  const sigset_t& before() const { return before_; }
  // Those that ask for a stop, since the last call.
  int take_requests() const {
    signalfd_siginfo info{};
    int requests = 0;
    while (::read(descriptor_, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
      requests += info.ssi_signo != SIGCHLD;
    return requests;
  }

 private:
  sigset_t before_{};
  int descriptor_ = -1;
};

// Where Open MPI puts its files, on one host: swept with ours where it is killed itself. The folder for ranks' shared memory
// lives as long as the result.
std::unique_ptr<OwnFolder> keep_mpirun_tidy(const Job& job, const OwnFolder& reports) {
  constexpr const char* kMemory = "/dev/shm";
  if (!job.hosts.empty() || !job.hostfile.empty()) return nullptr;  // other hosts lack the folders
  ::setenv("OMPI_MCA_orte_tmpdir_base", reports.path().c_str(), 0);
  if (::access(kMemory, W_OK | X_OK) != 0) return nullptr;
  try {
    auto memory = std::make_unique<OwnFolder>(kMemory);
    ::setenv("OMPI_MCA_btl_vader_backing_directory", memory->path().c_str(), 0);
    return memory;
  } catch (const Error&) {  // full: Open MPI says more
    return nullptr;
  }
}

// Open MPI 4.1.4 asks for the home folder, and crashes where neither HOME nor the system's users say one.
void give_a_home(const std::string& folder) {
  const char* home = std::getenv("HOME");
  if ((home == nullptr || *home == '\0') && ::getpwuid(::geteuid()) == nullptr)
    ::setenv("HOME", folder.c_str(), 1);
}

void hand_over(const Job& job) {
  const std::string text = to_yaml(job);
  constexpr size_t kMost = 120'000;  // of an environment's entry, by Linux
  if (text.size() > kMost)
    throw Error(Exit::config, "E_JOB_PIPE",
                fmt::format("a job of {} bytes cannot be handed to ranks from a pipe", text.size()))
        .at("job", job.file)
        .hint("save it to a file first");
  ::setenv(kJobVariable, text.c_str(), 1);
}

std::string own_program() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error)
    throw Error(Exit::io, "E_IO", "cannot read the link: " + error.message()).at("file", "/proc/self/exe");
  return program.string();
}

// A pipe's reading end here, its writing end in mpirun.
struct Pipe {
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      throw Error(Exit::io, "E_PIPE", fmt::format("cannot watch mpirun: {}", std::strerror(errno)));
    read = ends[0], write = ends[1];
  }
  ~Pipe() {
    ::close(read);
    close_write();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_write() {
    if (write >= 0) ::close(write);
    write = -1;
  }
  int read = -1, write = -1;
};

pid_t start(const std::vector<std::string>& command, int output, int errors, const sigset_t& mask) {
  std::vector<char*> argv;
  for (const auto& a : command) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw Error(Exit::io, "E_FORK", fmt::format("cannot start mpirun: {}", std::strerror(errno)));
  if (pid > 0) return pid;
  // A group of its own: a terminal's Ctrl-C reaches the launcher alone, which turns it into an orderly stop.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(1);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, 0);
  ::dup2(output, 1);
  ::dup2(errors, 2);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

// A rank of this host that is gone, and not because the job is done or stops in order: then the slowest rank
// may still be writing.
bool any_lost(const std::string& reports, int64_t count) {
  for (int r = 0; r < count; ++r) {
    const RankState s = read_rank(reports, r);
    if (s.started && s.pid == 0 && s.code != 0 && s.code != static_cast<int>(Exit::try_again)) return true;
  }
  return false;
}

bool all_started(const std::string& reports, int64_t count) {
  for (int r = 0; r < count; ++r)
    if (!read_rank(reports, r).started) return false;
  return true;
}

// Kills the ranks of this host that live, and waits until they are gone: who started this process may start
// the next job at once.
void kill_ranks(const std::string& reports, int64_t count) {
  const auto limit = Clock::now() + 2s;
  for (bool any = true; any && Clock::now() < limit;) {
    any = false;
    for (int r = 0; r < count; ++r)
      if (const RankState s = read_rank(reports, r); s.pid > 0) {
        ::kill(s.pid, SIGKILL);
        any = true;
      }
    if (any) ::usleep(5'000);
  }
}

// Follows mpirun until it has ended and its standard error is read.
class Watch {
 public:
  Watch(pid_t mpirun, int output, int errors, const Signals& signals, const std::string& reports,
        const Job& job)
      : mpirun_(mpirun),
        output_(output),
        errors_(errors),
        signals_(signals),
        reports_(reports),
        ranks_(job.instance_count),
        one_host_(job.hosts.empty() && job.hostfile.empty()) {}

  Ending run(MpirunNoise& noise) {
    auto until = Clock::time_point::max();
    // poll() passes over a negative descriptor.
    while ((running_ || output_ >= 0 || errors_ >= 0) && Clock::now() < until) {
      pollfd fds[3] = {{signals_.descriptor(), POLLIN, 0}, {errors_, POLLIN, 0}, {output_, POLLIN, 0}};
      ::poll(fds, 3, asked_ == 1 && !told_ ? 20 : 200);
      if (const int n = signals_.take_requests(); n > 0 && running_) on_requests(n);
      if (asked_ == 1 && !told_ && running_) tell_ranks();
      if (fds[1].revents) read(errors_, [&](std::string_view text) { noise.feed(text); });
      // Passed on by us, as the ranks have written it: mpirun would not say that it cannot be written.
      if (fds[2].revents) read(output_, [](std::string_view text) { say_styled(stdout, text); });
      if (running_) end_if_stuck();
      if (running_ && ::waitpid(mpirun_, &ending_.mpirun_status, WNOHANG) == mpirun_) {
        running_ = false;
        kill_ranks(reports_, ranks_);
        until = Clock::now() + 1s;  // for what is still in the pipe
      }
    }
    noise.finish();
    return ending_;
  }

 private:
  void on_requests(int n) {
    if (asked_ == 0) say(stderr, "stopping after the current step; once more to stop at once\n");
    asked_ += n;
    if (asked_ < 2 || ending_.forced) return;
    ending_.forced = true;
    kill_ranks(reports_, ranks_);
    ::kill(mpirun_, SIGTERM);
  }
  // Not before they catch it: the signal would end them.
  void tell_ranks() {
    if (!all_started(reports_, ranks_) && (one_host_ || Clock::now() - start_ < kStartup)) return;
    ::kill(mpirun_, SIGUSR1);
    told_ = true;
  }
  void end_if_stuck() {
    const auto now = Clock::now();
    if (!any_lost(reports_, ranks_)) {
      rank_lost_ = Clock::time_point::max();
    } else if (rank_lost_ == Clock::time_point::max()) {
      rank_lost_ = now;
    } else if (now - rank_lost_ > kMpirunStuck && !ending_.stuck) {
      ending_.stuck = true;
      kill_ranks(reports_, ranks_);
      ::kill(mpirun_, SIGKILL);  // it doesn't heed others
    }
  }
  template <class Feed>
  static void read(int& pipe, Feed feed) {
    char buffer[4096];
    const ssize_t n = ::read(pipe, buffer, sizeof buffer);
    if (n > 0)
      feed(std::string_view(buffer, static_cast<size_t>(n)));
    else
      pipe = -1;
  }

  pid_t mpirun_;
  int output_, errors_;
  const Signals& signals_;
  const std::string& reports_;
  int64_t ranks_;
  bool one_host_;
  Clock::time_point start_ = Clock::now(), rank_lost_ = Clock::time_point::max();
  Ending ending_;
  int asked_ = 0;
  bool told_ = false, running_ = true;
};

}  // namespace

bool starts_ranks(const Job& job) {
  return !launcher_environment().present &&
         (job.instance_count > 1 || !job.hosts.empty() || !job.hostfile.empty());
}

void require_launchable(const Job& job) {
  require_open_mpi(find_mpirun());
  require_known_hosts(job);
}

int launch_ranks(const Job& job, const std::vector<std::string>& rank_arguments,
                 const std::string& resume_command) {
  auto command = mpirun_command(job, usable_cores());
  const std::string mpirun = command.front();
  const OwnFolder reports(temporary_folder());
  const auto memory = keep_mpirun_tidy(job, reports);
  give_a_home(reports.path());
  ::setenv("LOCKSTEP_REPORT", reports.path().c_str(), 1);
  if (::isatty(1)) ::setenv("LOCKSTEP_TERMINAL", "1", 1);
  if (job.piped) hand_over(job);
  for (const char* name :
       {"LOCKSTEP_REPORT", "LOCKSTEP_START_NS", "LOCKSTEP_TERMINAL", "LOCKSTEP_CPU", kJobVariable})
    if (std::getenv(name)) command.insert(command.end(), {"-x", name});
  command.push_back(own_program());
  command.insert(command.end(), rank_arguments.begin(), rank_arguments.end());

  const Signals signals;
  if (signals.descriptor() < 0)
    throw Error(Exit::io, "E_PIPE", fmt::format("cannot watch mpirun: {}", std::strerror(errno)));
  Pipe output, errors;
  const pid_t pid = start(command, output.write, errors.write, signals.before());
  output.close_write(), errors.close_write();
  MpirunNoise noise([](std::string_view text) { say(stderr, text); });
  const Ending ending = Watch(pid, output.read, errors.read, signals, reports.path(), job).run(noise);
  if (const std::string run = read_run_folder(reports.path()).path; went_on_without(stdout) && !run.empty()) {
    open_log(run + "/log.txt", 0, 1);
    spdlog::info("the launcher could not write to standard output; the run went on without it");
  }
  return conclude(reports.path(), job, ending, noise, mpirun, resume_command);
}

}  // namespace lockstep
