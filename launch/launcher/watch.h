// SPDX-License-Identifier: Apache-2.0
// Follows mpirun until it has ended and its output is read, and ends it where it does not do so by itself.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

#include "kernels/core/error.h"
#include "launch/job/job.h"
#include "launch/launcher/mpirun_noise.h"
#include "launch/launcher/outcome.h"
#include "launch/launcher/signals.h"

namespace lockstep {

class Watch {
 public:
  // `output`, `errors`: reading ends of mpirun's pipes. `reports`: the folder of the ranks' reports.
  Watch(pid_t mpirun, int output, int errors, const Signals& signals, const std::string& reports,
        const Job& job);
  Ending run(MpirunNoise& noise);

 private:
  using Clock = std::chrono::steady_clock;

  void tick();
  void look_at_mpirun();
  bool have_met();
  void on_request();
  void obey();
  void expect_start();
  void expect_mpirun();
  void expect_ranks();
  std::string who_is_missing() const;
  void end(Error why);

  pid_t mpirun_;
  int output_, errors_;
  const Signals& signals_;
  const std::string& reports_;
  const Job& job_;
  double start_limit_;
  // Seconds that this process has run: one that is stopped, as a cluster does that suspends jobs, does not age.
  double now_ = 0;
  Clock::time_point last_tick_ = Clock::now();
  // When a stop was asked for, mpirun was stopped, the job's end began; -1: not yet.
  double asked_at_ = -1, stopped_at_ = -1, ends_at_ = -1;
  bool met_ = false, told_ = false, running_ = true;
  Ending ending_;
};

}  // namespace lockstep
