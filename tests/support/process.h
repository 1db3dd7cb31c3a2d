// SPDX-License-Identifier: Apache-2.0
// Programs started by tests: what they say and how they end.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace lockstep::testing {

// How long a test waits for what is to come. Only a failure takes so long, however busy the machine is.
constexpr auto kPatience = std::chrono::minutes(5);

// Whether the condition comes true within `limit`.
template <class Condition>
bool eventually(Condition&& condition, std::chrono::steady_clock::duration limit = kPatience) {
  using Clock = std::chrono::steady_clock;
  for (const auto until = Clock::now() + limit; Clock::now() < until;
       std::this_thread::sleep_for(std::chrono::milliseconds(1)))
    if (condition()) return true;
  return condition();
}

// A running program with its standard output and error in one stream, read as it comes: a program never waits for its test to
// read. Killed where the test ends before it.
class Process {
 public:
  // `command[0]` is looked up on the PATH. `environment` is added to this process's, without the variables by
  // which an MPI launcher would be recognised; an empty value removes a variable.
  explicit Process(const std::vector<std::string>& command,
                   const std::map<std::string, std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  // Until the output so far contains `text`; false where the output ends or `limit` passes before.
  bool wait_for(const std::string& text, std::chrono::milliseconds limit = kPatience);
  // Until the output has ended and the program too. Returns the exit code, 128 + N after signal N, or -1 where it had to be
  // killed after `limit`.
  int wait(std::chrono::milliseconds limit = kPatience);
  std::string output() const;  // so far

 private:
  void read(const std::stop_token& stop);

  pid_t pid_ = -1;
  int pipe_ = -1;
  mutable std::mutex mutex_;
  std::condition_variable more_;
  std::string output_;
  bool ended_ = false;  // nobody has the other end of the pipe any more
  std::jthread reader_;
};

struct Ended {
  int code;
  std::string output;
};
Ended run(const std::vector<std::string>& command,
          const std::map<std::string, std::string>& environment = {});
// mpirun for tests: any number of ranks on this host.
std::vector<std::string> mpirun(int ranks, const std::vector<std::string>& program);
// Living processes whose environment has `entry` ("NAME=value").
std::vector<pid_t> processes_with(const std::string& entry);
// That of them which is Open MPI's rank of this number. -1: there is none.
pid_t rank_with(const std::string& entry, int rank);
// Throws where there is no such process; so kill() never takes a -1, which means everybody.
void send_signal(pid_t process, int number);

}  // namespace lockstep::testing
