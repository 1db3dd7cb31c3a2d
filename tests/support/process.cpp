// SPDX-License-Identifier: Apache-2.0
#include "tests/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace lockstep::testing {

using Clock = std::chrono::steady_clock;

Process::Process(const std::vector<std::string>& command,
                 const std::map<std::string, std::string>& environment) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  std::vector<char*> argv;
  for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    for (int ignored : {SIGINT, SIGHUP})
      ::signal(ignored, SIG_DFL);  // by a shell's background jobs, by nohup
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_STEP_ID"}) ::unsetenv(name);
    for (const auto& [name, value] : environment)
      value.empty() ? ::unsetenv(name.c_str()) : ::setenv(name.c_str(), value.c_str(), 1);
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  pipe_ = ends[0];
  reader_ = std::jthread([this](const std::stop_token& stop) { read(stop); });
}

Process::~Process() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  reader_.request_stop();
  reader_.join();
  ::close(pipe_);
}

void Process::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

void Process::read(const std::stop_token& stop) {
  char buffer[4096];
  pollfd fd{pipe_, POLLIN, 0};
  while (!stop.stop_requested()) {
    if (::poll(&fd, 1, 50) <= 0) continue;
    const ssize_t n = ::read(pipe_, buffer, sizeof buffer);
    const std::lock_guard lock(mutex_);
    if (n > 0) output_.append(buffer, static_cast<size_t>(n));
    if (n <= 0) ended_ = true;
    more_.notify_all();
    if (n <= 0) return;
  }
}

std::string Process::output() const {
  const std::lock_guard lock(mutex_);
  return output_;
}

bool Process::wait_for(const std::string& text, std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  bool found = false;
  more_.wait_for(lock, limit, [&] {
    found = output_.find(text) != std::string::npos;
    return found || ended_;
  });
  return found;
}

int Process::wait(std::chrono::milliseconds limit) {
  const auto until = Clock::now() + limit;
  {
    std::unique_lock lock(mutex_);
    more_.wait_until(lock, until, [&] { return ended_; });
  }
  int status = 0;
  while (::waitpid(pid_, &status, WNOHANG) == 0) {
    if (Clock::now() > until) return -1;  // the destructor kills it
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Ended run(const std::vector<std::string>& command, const std::map<std::string, std::string>& environment) {
  Process process(command, environment);
  const int code = process.wait();
  return {code, process.output()};
}

std::vector<std::string> mpirun(int ranks, const std::vector<std::string>& program) {
  std::vector<std::string> command = {"mpirun",
                                      "-n",
                                      std::to_string(ranks),
                                      "--oversubscribe",
                                      "--bind-to",
                                      "none",
                                      "--mca",
                                      "pml",
                                      "ob1",
                                      "--mca",
                                      "btl",
                                      "self,vader",
                                      "--mca",
                                      "mpi_yield_when_idle",
                                      "1"};
  if (::geteuid() == 0) command.emplace_back("--allow-run-as-root");
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

std::vector<pid_t> processes_with(const std::string& entry) {
  std::vector<pid_t> found;
  for (const auto& folder : std::filesystem::directory_iterator("/proc")) {
    const std::string name = folder.path().filename();
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) continue;
    std::ifstream file(folder.path() / "environ", std::ios::binary);
    std::string text(1, '\0');
    text.append(std::istreambuf_iterator<char>(file), {});
    if (text.find('\0' + entry + '\0') != std::string::npos) found.push_back(std::stoi(name));
  }
  return found;
}

pid_t rank_with(const std::string& entry, int rank) {
  const auto ranks = processes_with("OMPI_COMM_WORLD_RANK=" + std::to_string(rank));
  for (pid_t p : processes_with(entry))
    if (std::ranges::count(ranks, p)) return p;
  return -1;
}

void send_signal(pid_t process, int number) {
  if (process <= 0 || ::kill(process, number) != 0) throw std::runtime_error("no such process");
}

}  // namespace lockstep::testing
