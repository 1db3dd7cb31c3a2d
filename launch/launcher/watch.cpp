// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/watch.h"

#include <fmt/ranges.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <vector>

#include "launch/launcher/hosts.h"
#include "launch/launcher/processes.h"
#include "launch/launcher/report.h"
#include "runtime/telemetry/say.h"

namespace lockstep {
namespace {

// A cluster may signal more than once, and the same process by several ways.
constexpr double kOneWish = 1;
// Whoever asks for a stop before the ranks have met waits so long for them. Nothing is lost then.
constexpr double kMeetAfterRequest = 2;
// mpirun takes a second to end the other ranks when one has ended. It waits for many minutes where a host's link is down,
// and Open MPI 4.1.4 may get stuck if a rank was killed while it connected: then the launcher ends it, and ssh.
constexpr double kMpirunStuck = 2.8;
// Longest wait for an mpirun whose ranks have all left, as how the job ended is known; and for a rank that says why it leaves.
constexpr double kLongest = 10;

// A rank of this host that is gone, and not because the job is done or stops in order: then the slowest rank may still be
// writing.
bool is_gone(const RankState& s) {
  return s.started && !s.remote && s.pid == 0 && s.code != 0 && s.code != static_cast<int>(Exit::try_again);
}

template <class Feed>
void pass_on(int& pipe, Feed feed) {
  char buffer[4096];
  const ssize_t n = ::read(pipe, buffer, sizeof buffer);
  if (n > 0)
    feed(std::string_view(buffer, static_cast<size_t>(n)));
  else
    pipe = -1;  // poll() passes over it
}

}  // namespace

Watch::Watch(pid_t mpirun, int output, int errors, const Signals& signals, const std::string& reports,
             const Job& job)
    : mpirun_(mpirun),
      output_(output),
      errors_(errors),
      signals_(signals),
      reports_(reports),
      job_(job),
      start_limit_(job.start_deadline_seconds * static_cast<double>(host_count(job))) {}

Ending Watch::run(MpirunNoise& noise) {
  auto until = std::numeric_limits<double>::infinity();
  while ((running_ || output_ >= 0 || errors_ >= 0) && now_ < until) {
    pollfd fds[3] = {{signals_.descriptor(), POLLIN, 0}, {errors_, POLLIN, 0}, {output_, POLLIN, 0}};
    ::poll(fds, 3, asked_at_ >= 0 && !told_ ? 20 : 200);
    tick();
    if (signals_.take_request() && running_) on_request();
    if (fds[1].revents) pass_on(errors_, [&](std::string_view text) { noise.feed(text); });
    // Passed on by us, as the ranks have written it: mpirun would not say that it cannot be written.
    if (fds[2].revents) pass_on(output_, [](std::string_view text) { say_styled(stdout, text); });
    if (!running_) continue;
    obey();
    expect_start();
    expect_mpirun();
    expect_ranks();
    look_at_mpirun();
    if (running_) continue;
    kill_all(reports_);
    until = now_ + 1;  // for what is still in the pipes
  }
  noise.finish();
  return ending_;
}

void Watch::tick() {
  const auto now = Clock::now();
  now_ += std::min(1., std::chrono::duration<double>(now - last_tick_).count());
  last_tick_ = now;
}

void Watch::look_at_mpirun() {
  int status = 0;
  while (::waitpid(mpirun_, &status, WNOHANG | WUNTRACED | WCONTINUED) == mpirun_) {
    if (WIFSTOPPED(status)) {
      stopped_at_ = now_;
    } else if (WIFCONTINUED(status)) {
      stopped_at_ = -1;
    } else {
      running_ = false;
      ending_.mpirun_status = status;
      return;
    }
  }
}

// Where one has, all have.
bool Watch::have_met() {
  for (int r = 0; r < job_.instance_count && !met_; ++r) met_ = read_rank(reports_, r).met;
  return met_;
}

void Watch::on_request() {
  if (asked_at_ < 0) {
    asked_at_ = now_;
    say(stderr, "stopping after the current step; once more to stop at once\n");
  } else if (now_ - asked_at_ > kOneWish && !ending_.why) {
    end(Error(Exit::try_again, "E_STOPPED", "stopped at once by a second signal"));
  }
}

// Ranks that have met catch the signal; it would end others.
void Watch::obey() {
  if (asked_at_ < 0 || told_ || ending_.why) return;
  if (have_met()) {
    ::kill(mpirun_, SIGUSR1);
    told_ = true;
  } else if (now_ - asked_at_ > kMeetAfterRequest) {
    end(Error(Exit::try_again, "E_STOPPED", "stopped by a signal before the ranks had met"));
  }
}

void Watch::expect_start() {
  if (now_ < start_limit_ || have_met() || ends_at_ >= 0) return;
  end(Error(Exit::try_again, "E_START_DEADLINE",
            fmt::format("the ranks have not met within {} s: {}", start_limit_, who_is_missing())));
}

void Watch::expect_mpirun() {
  if (stopped_at_ < 0 || ends_at_ >= 0 || !have_met() || now_ - stopped_at_ < job_.deadline_seconds) return;
  end(Error(Exit::try_again, "E_MPIRUN_LOST",
            fmt::format("mpirun (pid {}) has been stopped for {} s", mpirun_, job_.deadline_seconds)));
}

void Watch::expect_ranks() {
  bool lost = false, all_left = true, writing = false;
  for (int r = 0; r < job_.instance_count; ++r) {
    const RankState s = read_rank(reports_, r);
    lost |= s.peer_lost || is_gone(s);
    all_left &= s.started && s.code >= 0 && s.pid == 0;
    writing |= s.peer_lost && s.pid > 0 && s.code < 0;  // who is to blame, to a disk that may be slow
    // Those that are ended from now on are not to blame.
    if (ends_at_ < 0 && ending_.gone < 0 && is_gone(s) && s.code < 0) ending_.gone = r;
  }
  if (ends_at_ < 0 && (lost || all_left)) ends_at_ = now_;
  const double patience = (all_left && !lost && !ending_.why) || writing ? kLongest : kMpirunStuck;
  if (ends_at_ < 0 || now_ - ends_at_ < patience || ending_.killed) return;
  ending_.killed = true;
  kill_all(reports_);
  ::kill(mpirun_, SIGKILL);
}

std::string Watch::who_is_missing() const {
  std::vector<std::string> words;
  for (const JobProcess& p : job_processes(reports_)) {
    if (!p.stopped) continue;
    const std::string who = p.rank >= 0        ? fmt::format("rank {}", p.rank)
                            : p.pid == mpirun_ ? "mpirun"
                                               : p.name;
    words.push_back(fmt::format("{} (pid {}) is stopped", who, p.pid));
  }
  std::vector<int> missing;
  for (int r = 0; r < job_.instance_count; ++r)
    if (!read_rank(reports_, r).started) missing.push_back(r);
  if (missing.size() == 1) words.push_back(fmt::format("rank {} has not begun", missing[0]));
  if (missing.size() > 1) words.push_back(fmt::format("ranks {} have not begun", fmt::join(missing, ", ")));
  for (const std::string& host : silent_hosts(job_))
    words.push_back(fmt::format("host {} does not answer", host));
  return words.empty() ? "all have begun, and none has come through MPI's start"
                       : fmt::format("{}", fmt::join(words, "; "));
}

// Ranks first: mpirun takes a while over those that live.
void Watch::end(Error why) {
  ending_.why = std::move(why);
  ends_at_ = now_;
  kill_ranks(reports_);
  ::kill(mpirun_, SIGINT);  // it takes SIGTERM no more (Signals::for_mpirun)
}

}  // namespace lockstep
