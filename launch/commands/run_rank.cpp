// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>

#include "kernels/vendor/gpu_libraries.h"
#include "launch/commands/fit.h"
#include "launch/commands/job_plan.h"
#include "launch/commands/report_error.h"
#include "launch/commands/version.h"
#include "launch/job/availability.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/agree.h"
#include "runtime/comm/device_collectives.h"
#include "runtime/comm/together.h"
#include "runtime/device/memory.h"
#include "runtime/device/stop_signal.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/run_folder.h"
#include "runtime/telemetry/say.h"
#include "runtime/training/trainer.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;

// The run as rank 0 has it; the others know where it is and whether it goes on.
struct Run {
  std::optional<RunFolder> folder;
  std::string path;
  bool resumes = false;
  Status before;  // of a run that goes on
  bool begun = false;
};

// Rank 0's: creates or opens, and locks, the run folder.
void open_run(const Job& job, const FitOptions& options, Run& run) {
  run.resumes =
      options.resume == Resume::always || (options.resume == Resume::where_possible &&
                                           RunFolder::exists(job.output_dir, job.job_name, options.output));
  run.folder = run.resumes ? RunFolder::open(job.output_dir, job.job_name, options.output)
                           : RunFolder::create(job.output_dir, job.job_name, options.output);
  run.path = run.folder->path();
  try {
    if (run.resumes) run.before = read_status(run.path);
  } catch (const Error&) {  // a damaged or missing status says nothing
  }
  // A run that goes on keeps its job until the checkpoint has agreed with the new one.
  if (!run.resumes) write_file_atomically(run.folder->file("job.yaml"), to_yaml(job));
  write_status(run.path, {});
}

Status failure(const Error& e, int rank, int64_t step) {
  Status s;
  s.state = "failed", s.code = e.code(), s.rank = rank, s.step = step;
  s.error_id = e.id(), s.cause = e.message(), s.hint = e.hint();
  for (const auto& [key, value] : e.places()) {
    if (key == "op") s.op = value;
    if (key == "step") std::from_chars(value.data(), value.data() + value.size(), s.step);
    if (key == "rank") std::from_chars(value.data(), value.data() + value.size(), s.rank);
  }
  return s;
}

// A new run that has not begun leaves nothing behind; one that was to go on stays as it was. On a full disk the
// failure's own message and exit code matter more than this file's.
void note_failure(const Run& run, const Status& status) {
  if (run.path.empty()) return;
  if (run.folder && !run.resumes && !run.begun) {
    open_log("", 0, 1);  // closes the log
    discard_run(run.path, run.folder->made());
    return;
  }
  const bool stays =
      run.resumes && !run.begun && (run.before.state == "completed" || run.before.state == "interrupted");
  try {
    write_status(run.path, stays ? run.before : status);
  } catch (const Error& e) {
    report_error(e.what());
  }
}

// Whether NCCL carries the gradients. `auto` means what every rank has; a word where that is less than this
// one's GPU lets expect.
bool agree_on_nccl(const Job& job, Communicator& comm, Device device) {
  require_agreement(comm, {{"device", name(device)}});
  int64_t all = uses_nccl(job);
  comm.allreduce(std::span(&all, 1), Reduce::min);
  if (const std::string why = why_not_nccl(job); !why.empty()) spdlog::warn("gradients go over MPI: {}", why);
  if (all == 0 && uses_nccl(job)) spdlog::warn("gradients go over MPI: another rank has no NCCL");
  if (all == 0 && job.instance_count > 1 && job.gradient_precision == "bf16")
    throw AgreedError(Error(Exit::config, "E_JOB_UNAVAILABLE", "gradient_precision bf16: a rank has no NCCL")
                          .hint("gradient_precision: fp32 works here"));
  return all != 0;
}

}  // namespace

int run_rank(const Job& job, const FitOptions& options, Communicator& comm, RankReport& report) {
  const bool root = comm.rank() == 0;
  Run run;
  std::vector<std::string> warnings;
  int64_t step = 0;
  // All ranks leave together. mpirun takes a second or two over ranks that leave with anything but 0, and our
  // launcher has the code already.
  auto leave = [&](int code) { return report.exit_code(code) ? 0 : code; };
  // Its own end stands again.
  auto leave_finished = [&](const TrainingResult& result) {
    if (root) {
      write_status(run.path, run.before);
      const std::string how = run.before.cause.empty() ? "" : ", " + run.before.cause;
      spdlog::info("finished before, nothing to do");
      say(stdout, fmt::format("The run in {} is finished: step {} of {}{}\n", run.path, result.step,
                              result.steps, how));
    }
    return leave(0);
  };
  // A failure of this rank's own: the others wait in a collective, so nothing orderly can follow. The
  // launcher ends them.
  auto fail_alone = [&](Error e) {
    e.add_place("rank", std::to_string(comm.rank()));
    report_error(e.what());
    note_failure(run, failure(e, comm.rank(), step));
    report.exit_code(e.code());
    if (comm.size() > 1) {
      std::fflush(nullptr);
      ::_exit(e.code());
    }
    return e.code();
  };
  try {
    require_agreement(comm, {{"build", build()}, {"resolved job", job_hash(job)}});
    together(comm, [&] { require_available(job); });
    const std::string opened = on_root(comm, [&] {
      warnings = check_job(job).warnings;  // what is wrong with the job is said before anything is touched
      open_run(job, options, run);
      return (run.resumes ? "+" : "-") + run.path;
    });
    run.path = opened.substr(1), run.resumes = opened[0] == '+';
    // From here on status.json is this run's, not that of one it resumes.
    report.run_folder(run.path, !run.resumes, root ? run.folder->made() : "");
    // Only rank 0's host is known to hold the folder; the other ranks' warnings go to stderr.
    open_log(root ? run.path + "/log.txt" : "", comm.rank(), comm.size());
    spdlog::info("{} rank {} of {}, job {}", run.resumes ? "resumes" : "starts", comm.rank(), comm.size(),
                 job.file);
    for (const std::string& warning : warnings) spdlog::warn("{}", warning);

    const auto environment = launcher_environment();
    const int local_size = environment.present ? environment.local_size : 1;
    TrainerOptions o = trainer_options(job, kernel_choice(job, local_size));
    std::unique_ptr<DeviceRuntime> gpu;
    std::unique_ptr<DeviceCollectives> collectives;
    const bool over_nccl = agree_on_nccl(job, comm, o.kernels.device);
    if (o.kernels.device == Device::cuda) {
      gpu = make_cuda_runtime(environment.local_rank);
      o.kernels.processor = gpu->name();
      if (over_nccl)
        collectives = make_nccl_collectives(
            *gpu, comm, {job.deadline_seconds, options.on_peer_lost, gradient_dtype(job)});
      spdlog::info("rank {} computes on {}{}", comm.rank(), gpu->name(),
                   collectives ? fmt::format(", gradients over NCCL in {}", name(gradient_dtype(job))) : "");
      for (const std::string& library : gpu_library_descriptions()) spdlog::info("{}", library);
    }
    o.device = gpu.get(), o.collectives = collectives.get();
    o.run_folder = run.path;
    o.trace_file = options.trace_file, o.profile = options.profile;
    o.resume = run.resumes, o.retune = options.retune;
    o.allow_change = options.allow_change;
    o.was_completed = run.before.state == "completed";
    o.stop_requested = stop_requested;
    o.start_seconds = report.launcher_seconds();
    o.on_ready = [&](int64_t done) {
      if (root && run.resumes) write_file_atomically(run.folder->file("job.yaml"), to_yaml(job));
      run.begun = true;
      report.step(step = done);
    };
    auto last_status = Clock::now();
    o.on_step = [&](int64_t done, int64_t steps) {
      step = done;
      report.step(done);
      if (root && Clock::now() - last_status > std::chrono::seconds(2)) {
        Status s;
        s.step = done, s.steps = steps;
        write_status(run.path, s);
        last_status = Clock::now();
      }
    };
    const TrainingResult result = train(o, comm);
    if (result.was_finished) return leave_finished(result);
    Status s;
    s.step = result.step, s.steps = result.steps;
    s.skipped_images = result.skipped_images;
    s.state = result.interrupted ? "interrupted" : "completed";
    s.code = result.interrupted ? static_cast<int>(Exit::try_again) : 0;
    if (result.interrupted) s.cause = "stopped on request", s.hint = "resume with: " + options.resume_command;
    if (!result.stopped_early.empty()) s.cause = "stopped early: " + result.stopped_early;
    spdlog::info("{} at step {} of {}", s.state, s.step, s.steps);
    if (root) {
      write_status(run.path, s);
      if (!result.profile.empty()) say(stdout, "\n" + result.profile);
      if (!options.trace_file.empty())
        say(stdout, fmt::format("Trace          {} (ui.perfetto.dev opens it)\n", options.trace_file));
      if (result.interrupted)
        say(stderr, fmt::format("stopped at step {} of {}; a checkpoint stands in {}; resume with: {}\n",
                                result.step, result.steps, run.path, options.resume_command));
    }
    return leave(s.code);
  } catch (const AgreedError& e) {
    if (root) {
      report_error(e.what());
      note_failure(run, failure(e, -1, step));
    }
    return leave(e.code());
  } catch (const Error& e) {
    return fail_alone(e);
  } catch (const std::bad_alloc&) {
    return fail_alone(out_of_memory());
  } catch (const std::exception& e) {
    return fail_alone(Error(Exit::internal, "E_INTERNAL", e.what()));
  }
}

}  // namespace lockstep
