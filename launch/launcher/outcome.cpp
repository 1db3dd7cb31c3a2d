// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/outcome.h"

#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
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
  bool any_started = false, any_step = false;
  int64_t last_step = 0;
  int failed = -1,
      code = 0;     // the first rank that reported a failure; rather one other than "a peer is lost"
  int silent = -1;  // the first that ended without a word
};

Ranks read_ranks(const std::string& reports, int64_t count) {
  Ranks all;
  for (int r = 0; r < count; ++r) {
    const RankState s = read_rank(reports, r);
    if (!s.started) continue;
    all.any_started = true;
    all.any_step |= s.step >= 0;
    all.last_step = std::max(all.last_step, s.step);
    if (s.code < 0 && all.silent < 0) all.silent = r;
    if (s.code > 0 && (all.failed < 0 || all.code == kTryAgain)) all.failed = r, all.code = s.code;
  }
  return all;
}

// A damaged or missing status says nothing.
Status status_of(const std::string& run) {
  try {
    return read_status(run);
  } catch (const Error&) {
    return {};
  }
}

// The rank that was lost, and with it the job.
Error lost(const Ending& ending, const Ranks& ranks, const MpirunNoise& noise) {
  if (ending.forced) return Error(Exit::try_again, "E_STOPPED", "stopped at once by a second signal");
  if (WIFSIGNALED(ending.mpirun_status) && !ending.stuck)
    return Error(
        Exit::try_again, "E_MPIRUN_LOST",
        fmt::format("mpirun was ended by signal {}, and its ranks with it", WTERMSIG(ending.mpirun_status)));
  const int rank = noise.failed_rank() >= 0 ? noise.failed_rank() : ranks.silent;
  const std::string cause = noise.cause().empty() ? "ended without a word" : "ended by " + noise.cause();
  if (rank < 0) return Error(Exit::try_again, "E_RANK_LOST", "a rank " + cause);
  return Error(Exit::try_again, "E_RANK_LOST", fmt::format("rank {} {}", rank, cause)).at("rank", rank);
}

void write_failure(const std::string& run, Status status, const Error& e, int rank, int64_t step) {
  status.state = "failed", status.code = e.code(), status.rank = rank, status.step = step;
  status.error_id = e.id(), status.cause = e.message(), status.hint = e.hint();
  try {
    write_status(run, status);
  } catch (const Error& failure) {
    say(stderr, failure.what() + std::string("\n"));
  }
}

}  // namespace

int conclude(const std::string& reports, const Job& job, const Ending& ending, const MpirunNoise& noise,
             const std::string& mpirun, const std::string& resume_command) {
  const Ranks ranks = read_ranks(reports, job.instance_count);
  const auto [folder, is_new, made] = read_run_folder(reports);
  // A run that no rank has begun: whichever rank is to blame, rank 0 may not have come to clear it away.
  const bool begun = !is_new || ranks.any_step;
  if (!folder.empty() && !begun) discard_run(folder, made);
  const std::string run = begun ? folder : "";
  const Status status = run.empty() ? Status{} : status_of(run);
  // Where no step was done, a run that was resumed has the end that it had before.
  const bool noted = !run.empty() && status.state != "running";
  if (noted && ranks.any_step) return status.code;
  if (WIFEXITED(ending.mpirun_status) && WEXITSTATUS(ending.mpirun_status) == 0 && ranks.code == 0) return 0;

  if (ranks.code > 0 && ranks.code != kTryAgain) {  // it has said why
    if (!run.empty() && !noted)
      write_failure(run, status,
                    Error(static_cast<Exit>(ranks.code), "E_RANK_FAILED", "see log.txt and standard error"),
                    ranks.failed, ranks.last_step);
    return ranks.code;
  }
  if (run.empty() && !ending.forced && !ending.stuck) {
    // Before there is a run, and on other hosts, where ranks can report nothing, mpirun's own words must do.
    if (noise.exit_code() > 0) return noise.exit_code();
    if (!ranks.any_started && noise.failed_rank() < 0 && !WIFSIGNALED(ending.mpirun_status)) {
      require_open_mpi(mpirun);
      require_known_hosts(job);
      throw Error(Exit::unavailable, "E_MPIRUN", "mpirun could not start the ranks")
          .at("mpirun", mpirun)
          .hint("its own words stand above");
    }
  }
  Error e = lost(ending, ranks, noise);
  e.add_place("step", std::to_string(ranks.last_step));
  if (!run.empty()) e.add_place("run", run);
  e.set_hint(begun ? "resume with: " + resume_command : "start the job again: no step was done");
  if (!run.empty() && !noted)
    write_failure(run, status, e, ending.forced ? -1 : std::max(noise.failed_rank(), ranks.silent),
                  ranks.last_step);
  say(stderr, e.what() + std::string("\n"));
  return e.code();
}

}  // namespace lockstep
