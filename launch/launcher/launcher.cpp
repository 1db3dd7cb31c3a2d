#include "launch/launcher/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "launch/launcher/mpirun_noise.h"
#include "launch/launcher/report.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/telemetry/run_folder.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;

struct ReportFolder {
  ReportFolder() {
    const char* base = std::getenv("TMPDIR");
    path = std::string(base && *base ? base : "/tmp") + "/lockstep-XXXXXX";
    if (!::mkdtemp(path.data()))
      throw Error(Exit::cannot_create, "E_TMP", fmt::format("cannot create a temporary folder: {}", std::strerror(errno))).at("path", path);
  }
  ~ReportFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string path;
};

std::string find_mpirun() {
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "/usr/bin:/bin";
  while (!rest.empty()) {
    const auto colon = rest.find(':');
    const std::string candidate = rest.substr(0, colon) + "/mpirun";
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  throw Error(Exit::config, "E_NO_MPIRUN", "instance_count is more than 1, and there is no mpirun on the PATH")
      .hint("install openmpi-bin, or set instance_count: 1");
}

pid_t start(const std::vector<std::string>& command, int error_pipe, const sigset_t& original_mask) {
  std::vector<char*> argv;
  for (const auto& a : command) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw Error(Exit::io, "E_FORK", fmt::format("cannot start mpirun: {}", std::strerror(errno)));
  if (pid > 0) return pid;
  // A group of its own: a terminal's Ctrl-C reaches this process alone, which turns it into an orderly stop.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(1);
  ::sigprocmask(SIG_SETMASK, &original_mask, nullptr);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, 0);
  ::dup2(error_pipe, 2);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

// Ranks whose mpirun is gone: none may be left behind.
void kill_ranks(const std::string& folder, int64_t count) {
  std::vector<int> pids;
  for (int r = 0; r < count; ++r)
    if (const RankState s = read_rank(folder, r); s.pid > 0 && ::kill(s.pid, SIGKILL) == 0) pids.push_back(s.pid);
  // Until they are gone: whoever started this process may start the next job at once.
  for (int tries = 0; tries < 200; ++tries) {
    if (std::none_of(pids.begin(), pids.end(), [](int pid) { return ::kill(pid, 0) == 0; })) return;
    ::usleep(10'000);
  }
}

// How the job ended, and status.json to match where no rank could write it.
int conclude(const std::string& folder, const Job& job, int mpirun_status, bool forced, const MpirunNoise& noise,
             const std::string& resume_command) {
  const std::string run = read_run_folder(folder);
  int64_t last_step = 0;
  int code = -1, silent = -1;
  for (int r = 0; r < job.instance_count; ++r) {
    const RankState s = read_rank(folder, r);
    last_step = std::max(last_step, s.step);
    if (s.started && s.code < 0 && silent < 0) silent = r;
    if (s.code > 0 && (code <= 0 || code == static_cast<int>(Exit::try_again))) code = s.code;
  }
  const bool clean = WIFEXITED(mpirun_status) && WEXITSTATUS(mpirun_status) == 0;
  if (clean && code <= 0) return 0;
  Status status;
  if (!run.empty()) {
    status = read_status(run);
    if (status.state != "running") return status.code;
  }
  if (code > 0 && !forced && noise.killed_rank() < 0) return code;

  // A rank ended without a word: killed, or crashed.
  const int rank = noise.killed_rank() >= 0 ? noise.killed_rank() : silent;
  if (rank < 0 && run.empty()) {
    if (!noise.text().empty()) fmt::print(stderr, "{}", noise.text());
    throw Error(Exit::unavailable, "E_MPIRUN", "mpirun could not start the ranks").hint("its own words stand above");
  }
  Error e = Error(Exit::try_again, "E_RANK_LOST",
                  forced ? "stopped at once on a second signal"
                         : fmt::format("rank {} ended without a word{}", rank, noise.cause().empty() ? "" : ": " + noise.cause()))
                .at("rank", rank)
                .at("step", last_step);
  if (!resume_command.empty()) e.set_hint("resume with: " + resume_command);
  if (!run.empty()) {
    status.state = "failed", status.code = e.code(), status.rank = rank, status.step = last_step;
    status.error_id = e.id(), status.cause = e.message(), status.hint = e.hint();
    write_status(run, status);
    e.add_place("run", run);
  }
  fmt::print(stderr, "{}\n", e.what());
  return e.code();
}

}  // namespace

std::vector<std::string> mpirun_command(const Job& job, int cores) {
  std::vector<std::string> c = {find_mpirun(), "-n", std::to_string(job.instance_count)};
  auto add = [&](std::initializer_list<const char*> words) { c.insert(c.end(), words.begin(), words.end()); };
  if (::geteuid() == 0) add({"--allow-run-as-root"});
  if (!job.hosts.empty()) {
    std::string list;
    for (const auto& h : job.hosts) list += (list.empty() ? "" : ",") + h;
    c.insert(c.end(), {"--host", list, "--bind-to", "none"});
  } else if (!job.hostfile.empty()) {
    c.insert(c.end(), {"--hostfile", job.hostfile, "--bind-to", "none"});
  } else {
    // One host: only the transports that it needs (MPI_Init in 17 ms instead of 220).
    add({"--mca", "pml", "ob1", "--mca", "btl", "self,vader"});
    const int64_t threads = job.threads_per_rank > 0 ? job.threads_per_rank : std::max<int64_t>(1, cores / job.instance_count);
    if (job.instance_count * threads <= cores && threads == 1)
      add({"--bind-to", "core"});
    else
      add({"--bind-to", "none"});
    if (job.instance_count > cores) add({"--mca", "mpi_yield_when_idle", "1"});
    add({"--oversubscribe"});
  }
  return c;
}

int launch_ranks(const Job& job, const std::vector<std::string>& rank_arguments, const std::string& resume_command) {
  ReportFolder report;
  ::setenv("LOCKSTEP_REPORT", report.path.c_str(), 1);
  if (::isatty(1)) ::setenv("LOCKSTEP_TERMINAL", "1", 1);
  auto command = mpirun_command(job, usable_cores());
  for (const char* name : {"LOCKSTEP_REPORT", "LOCKSTEP_START_NS", "LOCKSTEP_TERMINAL", "LOCKSTEP_CPU"})
    if (std::getenv(name)) command.insert(command.end(), {"-x", name});
  command.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
  command.insert(command.end(), rank_arguments.begin(), rank_arguments.end());

  sigset_t watched, original;
  sigemptyset(&watched);
  for (int s : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&watched, s);
  ::sigprocmask(SIG_BLOCK, &watched, &original);
  const int signals = ::signalfd(-1, &watched, SFD_CLOEXEC);
  int pipe[2];
  if (signals < 0 || ::pipe2(pipe, O_CLOEXEC) != 0) throw Error(Exit::io, "E_PIPE", std::strerror(errno));
  const pid_t mpirun = start(command, pipe[1], original);
  ::close(pipe[1]);

  MpirunNoise noise;
  int asked = 0, status = 0;
  bool running = true, open = true;
  Clock::time_point deadline = Clock::time_point::max();
  while (running || open) {
    pollfd fds[2] = {{signals, POLLIN, 0}, {open ? pipe[0] : -1, POLLIN, 0}};
    ::poll(fds, 2, 200);
    if (fds[0].revents & POLLIN) {
      signalfd_siginfo info{};
      if (::read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info) && info.ssi_signo != SIGCHLD && running) {
        if (++asked == 1) {
          ::kill(mpirun, SIGUSR1);
        } else {
          kill_ranks(report.path, job.instance_count);
          ::kill(mpirun, SIGTERM);
        }
      }
    }
    if (fds[1].revents) {
      char buffer[4096];
      const ssize_t n = ::read(pipe[0], buffer, sizeof buffer);
      if (n > 0)
        noise.feed({buffer, static_cast<size_t>(n)});
      else
        open = false;
    }
    if (running && ::waitpid(mpirun, &status, WNOHANG) == mpirun) {
      running = false;
      kill_ranks(report.path, job.instance_count);
      deadline = Clock::now() + std::chrono::seconds(1);  // for what is still in the pipe
    }
    if (Clock::now() > deadline) break;
  }
  noise.finish();
  ::close(pipe[0]);
  ::close(signals);
  ::sigprocmask(SIG_SETMASK, &original, nullptr);
  return conclude(report.path, job, status, asked > 1, noise, resume_command);
}

}  // namespace lockstep
