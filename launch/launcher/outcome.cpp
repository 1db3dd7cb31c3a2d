// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/outcome.h"

#include <fmt/ranges.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <vector>

#include "kernels/core/error.h"
#include "launch/launcher/hosts.h"
#include "launch/launcher/mpirun.h"
#include "launch/launcher/report.h"
#include "runtime/telemetry/run_folder.h"
#include "runtime/telemetry/say.h"

namespace lockstep {
namespace {

constexpr int kTryAgain = static_cast<int>(Exit::try_again);

struct Ranks {
  bool any_step = false, peer_lost = false;  // one has said so
  bool all_done = true, all_stopped = true;  // all have
  int64_t last_step = 0;
  int failed = -1,
      code = 0;              // the first rank that reported a failure; rather one other than "a peer is lost"
  int silent = -1;           // the first of this host that ended without a word
  std::vector<int> missing;  // that have not begun
};

Ranks read_ranks(const std::string& reports, int64_t count) {
  Ranks all;
  for (int r = 0; r < count; ++r) {
    const RankState s = read_rank(reports, r);
    all.all_done &= s.started && s.code == 0;
    all.all_stopped &= s.started && s.code == kTryAgain && !s.peer_lost;
    if (!s.started) {
      all.missing.push_back(r);
      continue;
    }
    all.any_step |= s.step >= 0;
    all.peer_lost |= s.peer_lost;
    all.last_step = std::max(all.last_step, s.step);
    if (s.code < 0 && !s.remote && all.silent < 0) all.silent = r;
    if (s.code > 0 && (all.failed < 0 || all.code == kTryAgain)) all.failed = r, all.code = s.code;
  }
  return all;
}

// What was lost, and with it the job. None: the ranks alone know.
std::optional<Error> lost(const Job& job, const Ending& ending, const Ranks& ranks, const MpirunNoise& noise,
                          bool stands) {
  if (ending.why) return ending.why;
  if (WIFSIGNALED(ending.mpirun_status) && !ending.killed)
    return Error(
        stands ? Exit::try_again : Exit::unavailable, "E_MPIRUN_LOST",
        fmt::format("mpirun was ended by signal {}, and its ranks with it", WTERMSIG(ending.mpirun_status)));
  const auto lost_rank = [&](int rank, const std::string& how) {
    return Error(stands ? Exit::try_again : Exit::unavailable, "E_RANK_LOST",
                 fmt::format("rank {} ended {}", rank, how))
        .at("rank", rank);
  };
  // A rank that says that it has lost a peer is not the one that was lost.
  if (noise.failed_rank() >= 0 && noise.exit_code() != kTryAgain)
    return lost_rank(noise.failed_rank(), "by " + noise.cause());
  // Where mpirun has lost a host it ends the ranks of the others, which have no time for a word.
  const std::vector<std::string> hosts = silent_hosts(job);
  if (!hosts.empty())
    return Error(stands ? Exit::try_again : Exit::unavailable, "E_PEER_LOST",
                 fmt::format("host{} {} {} not answer", hosts.size() == 1 ? "" : "s", fmt::join(hosts, ", "),
                             hosts.size() == 1 ? "does" : "do"))
        .at("host", fmt::format("{}", fmt::join(hosts, ",")));
  if (!noise.lost_host().empty())
    return Error(stands ? Exit::try_again : Exit::unavailable, "E_PEER_LOST", "mpirun's daemon there is gone")
        .at("host", noise.lost_host());
  // Open MPI 5 ends a rank that cannot connect to another before ours asks whether they answer.
  if (!noise.unreachable().empty() && !ranks.any_step)
    return Error(Exit::unavailable, "E_UNREACHABLE",
                 noise.unreachable() + ": network_interface says which network joins the hosts");
  // So it ends those of one host that have begun, where another died before that; of other hosts one may just be late.
  const bool died_first = !ranks.missing.empty() && host_count(job) == 1;
  const int silent = died_first                         ? ranks.missing.front()
                     : ending.gone >= 0                 ? ending.gone
                     : !ranks.missing.empty()           ? ranks.missing.front()
                     : ending.killed || ranks.peer_lost ? -1  // rank 0's own words name it
                                                        : ranks.silent;
  if (silent >= 0) return lost_rank(silent, "without a word");
  if (ranks.peer_lost) return std::nullopt;
  return Error(stands ? Exit::try_again : Exit::unavailable, "E_RANK_LOST", "a rank ended without a word");
}

void write_failure(const std::string& run, const Status& before, const Error& e, int64_t step) {
  try {
    write_status(run, failed(before, e, step));
  } catch (const Error& failure) {
    say(stderr, failure.what() + std::string("\n"));
  }
}

// Where mpirun has started none, or not all for a first step, its own words must do.
Error not_started(const Ranks& ranks, int64_t count, const std::string& mpirun) {
  const std::string who =
      std::ssize(ranks.missing) == count
          ? "the ranks"
          : fmt::format("rank{} {}", ranks.missing.size() == 1 ? "" : "s", fmt::join(ranks.missing, ", "));
  return Error(Exit::unavailable, "E_MPIRUN", "mpirun could not start " + who)
      .at("mpirun", mpirun)
      .hint("what it has said stands above");
}

bool is_of_a_rank(int code) {
  return code >= static_cast<int>(Exit::usage) && code <= static_cast<int>(Exit::diverged);
}

}  // namespace

int conclude(const std::string& reports, const Job& job, const Ending& ending, const MpirunNoise& noise,
             const std::string& mpirun, const Resumption& resumption) {
  const Ranks ranks = read_ranks(reports, job.instance_count);
  const auto [folder, is_new, made] = read_run_folder(reports);
  // A run that no rank has begun: whichever rank is to blame, rank 0 may not have come to clear it away.
  const bool stands = ranks.any_step || (folder.empty() ? resumption.exists : !is_new);
  if (!folder.empty() && !stands) discard_run(folder, made);
  const std::string run = stands ? folder : "";
  const Status status = run.empty() ? Status{} : last_status(run);
  // Where no step was done, a run that was resumed has the end that it had before.
  const bool noted = !run.empty() && status.state != "running";
  if (noted && ranks.any_step && (!ranks.peer_lost || status.state != "failed")) return status.code;
  const bool content = WIFEXITED(ending.mpirun_status) && WEXITSTATUS(ending.mpirun_status) == 0;
  if ((content || ending.killed) && ranks.all_done && (run.empty() || status.state == "completed")) return 0;
  if (ranks.all_stopped) return kTryAgain;  // of a run on another host

  if (ranks.code > 0 && ranks.code != kTryAgain) {  // it has said why
    if (!run.empty() && !noted)
      write_failure(run, status,
                    Error(static_cast<Exit>(ranks.code), "E_RANK_FAILED", "see log.txt and standard error")
                        .at("rank", ranks.failed),
                    ranks.last_step);
    return ranks.code;
  }
  const bool none = std::ssize(ranks.missing) == job.instance_count;
  if (!ending.why && !ending.killed && (none || !stands)) {
    if (is_of_a_rank(noise.exit_code()) && noise.exit_code() != kTryAgain) return noise.exit_code();
    if (!ranks.missing.empty() && noise.cause().empty() && !WIFSIGNALED(ending.mpirun_status)) {
      require_open_mpi(mpirun);
      require_known_hosts(job);
      throw not_started(ranks, job.instance_count, mpirun);
    }
  }
  std::optional<Error> e = lost(job, ending, ranks, noise, stands);
  if (!e && noted) return status.code;
  if (!e)
    e = Error(stands ? Exit::try_again : Exit::unavailable, "E_PEER_LOST", "a rank has lost another one");
  if (ranks.any_step) e->add_place("step", std::to_string(ranks.last_step));
  if (!run.empty()) e->add_place("run", run);
  e->set_hint(stands                   ? "resume with: " + resumption.command
              : e->code() == kTryAgain ? "start the job again: no step was done"
                                       : "no step was done: mend the cause, then start the job again");
  if (!run.empty() && (!noted || ranks.peer_lost)) write_failure(run, status, *e, ranks.last_step);
  say(stderr, e->what() + std::string("\n"));
  return e->code();
}

}  // namespace lockstep
