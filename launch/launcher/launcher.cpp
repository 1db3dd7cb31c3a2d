// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/launcher.h"

#include <fcntl.h>
#include <pwd.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
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
#include "launch/launcher/signals.h"
#include "launch/launcher/watch.h"
#include "launch/openmp_threads.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/say.h"

namespace lockstep {
namespace {

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

// With the hosts that it names: an allocation's (on_allocated_nodes) are no part of it.
void hand_over(Job job) {
  if (!job.where.contains("hosts")) job.hosts.clear();
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
  ::prctl(PR_SET_PDEATHSIG, SIGINT);
  if (::getppid() != parent) ::_exit(1);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, 0);
  ::dup2(output, 1);
  ::dup2(errors, 2);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

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
                 const Resumption& resumption) {
  require_places(job);
  const Signals signals;  // before there is anything to clear away
  auto command = mpirun_command(job, usable_cores());
  const std::string mpirun = command.front();
  const OwnFolder reports(temporary_folder());
  const auto memory = keep_mpirun_tidy(job, reports);
  give_a_home(reports.path());
  ::setenv("LOCKSTEP_REPORT", reports.path().c_str(), 1);
  if (::isatty(1)) ::setenv("LOCKSTEP_TERMINAL", "1", 1);
  if (job.piped) hand_over(job);
  let_openmp_threads_of_others_sleep();
  for (const char* name : {"LOCKSTEP_REPORT", "LOCKSTEP_START_NS", "LOCKSTEP_TERMINAL", "LOCKSTEP_CPU",
                           "GOMP_SPINCOUNT", kJobVariable})
    if (std::getenv(name)) command.insert(command.end(), {"-x", name});
  command.push_back(own_program());
  command.insert(command.end(), rank_arguments.begin(), rank_arguments.end());

  Pipe output, errors;
  const pid_t pid = start(command, output.write, errors.write, signals.for_mpirun());
  output.close_write(), errors.close_write();
  MpirunNoise noise([](std::string_view text) { say(stderr, text); },
                    [&](std::string_view line) { return take_report(reports.path(), line); });
  const Ending ending = Watch(pid, output.read, errors.read, signals, reports.path(), job).run(noise);
  if (const std::string run = read_run_folder(reports.path()).path; went_on_without(stdout) && !run.empty()) {
    open_log(run + "/log.txt", 0, 1);
    spdlog::info("the launcher could not write to standard output; the run went on without it");
  }
  return conclude(reports.path(), job, ending, noise, mpirun, resumption);
}

}  // namespace lockstep
