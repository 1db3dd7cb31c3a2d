// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
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
#include "runtime/comm/whereabouts.h"
#include "runtime/device/memory.h"
#include "runtime/device/stop_signal.h"
#include "runtime/files/path.h"
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
  Status before;                    // of a run that goes on
  std::atomic<bool> begun = false;  // the watchdog looks at it
};

// Rank 0's: creates or opens, and locks, the run folder.
void open_run(const Job& job, const FitOptions& options, Run& run) {
  run.resumes =
      options.resume == Resume::always || (options.resume == Resume::where_possible &&
                                           RunFolder::exists(job.output_dir, job.job_name, options.output));
  run.folder = run.resumes ? RunFolder::open(job.output_dir, job.job_name, options.output)
                           : RunFolder::create(job.output_dir, job.job_name, options.output);
  run.path = run.folder->path();
  if (run.resumes) run.before = last_status(run.path);
  // A run that goes on keeps its job until the checkpoint has agreed with the new one.
  if (!run.resumes) write_file_atomically(run.folder->file("job.yaml"), to_yaml(job));
  write_status(run.path, {});
}

// A new run that has not begun leaves nothing behind; one that was to go on stays as it was. On a full disk the
// failure's own message and exit code matter more than this file's.
void note_failure(const Run& run, const Status& status) {
  if (run.path.empty()) return;
  if (!run.folder && !is_there(run.path + "/status.json")) return;  // it is on rank 0's host alone
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

// One rank's part in a run, from its folder to the status it ends with.
class RankRun {
 public:
  RankRun(const Job& job, const FitOptions& options, Communicator& comm, RankReport& report, PeerLoss& loss)
      : job_(job), options_(options), comm_(comm), report_(report), loss_(loss) {}
  ~RankRun() { loss_.set_note({}); }
  RankRun(const RankRun&) = delete;
  RankRun& operator=(const RankRun&) = delete;

  // Before anything is touched: one program, one job, and a machine that can do it. Then the folder and its log.
  void open() {
    require_agreement(comm_, {{"build", build()}, {"resolved job", job_hash(job_)}});
    together(comm_, [&] { require_available(job_); });
    std::vector<std::string> warnings;
    const std::string opened = on_root(comm_, [&] {
      warnings = check_job(job_).warnings;  // what is wrong with the job is said before anything is touched
      open_run(job_, options_, run_);
      return (run_.resumes ? "+" : "-") + run_.path;
    });
    run_.path = opened.substr(1), run_.resumes = opened[0] == '+';
    // From here on status.json is this run's, not that of one it resumes.
    report_.run_folder(run_.path, !run_.resumes, is_root() ? run_.folder->made() : "");
    // Only rank 0's host is known to hold the folder; the other ranks' warnings go to stderr.
    open_log(is_root() ? run_.path + "/log.txt" : "", comm_.rank(), comm_.size());
    spdlog::info("{} rank {} of {}, job {}", run_.resumes ? "resumes" : "starts", comm_.rank(), comm_.size(),
                 job_.file);
    for (const std::string& warning : warnings) spdlog::warn("{}", warning);
    loss_.set_note([this](const Error& e, bool told) { note_loss(e, told); });
  }

  TrainingResult train() {
    const auto environment = launcher_environment();
    TrainerOptions o =
        trainer_options(job_, kernel_choice(job_, environment.present ? environment.local_size : 1));
    std::unique_ptr<DeviceRuntime> gpu;
    std::unique_ptr<DeviceCollectives> collectives;
    const bool over_nccl = agree_on_nccl(job_, comm_, o.kernels.device);
    if (o.kernels.device == Device::cuda) {
      gpu = make_cuda_runtime(environment.local_rank);
      o.kernels.processor = gpu->name();
      if (over_nccl) collectives = connect(*gpu);
      spdlog::info("rank {} computes on {}{}", comm_.rank(), gpu->name(),
                   collectives ? fmt::format(", gradients over NCCL in {}", name(gradient_dtype(job_))) : "");
      for (const std::string& library : gpu_library_descriptions()) spdlog::info("{}", library);
    }
    o.device = gpu.get(), o.collectives = collectives.get();
    o.run_folder = run_.path;
    o.trace_file = options_.trace_file, o.profile = options_.profile;
    o.resume = run_.resumes, o.retune = options_.retune;
    o.allow_change = options_.allow_change;
    o.was_completed = run_.before.state == "completed";
    o.stop_requested = stop_requested;
    o.start_seconds = report_.launcher_seconds();
    o.on_ready = [&](int64_t done) {
      if (is_root() && run_.resumes) write_file_atomically(run_.folder->file("job.yaml"), to_yaml(job_));
      run_.begun = true;
      loss_.begin();
      report_.step(step_ = done);
    };
    last_status_ = Clock::now();
    o.on_step = [&](int64_t done, int64_t steps) { note_step(done, steps); };
    return lockstep::train(o, comm_);
  }

  int finish(const TrainingResult& result) {
    if (result.was_finished) return leave_finished(result);
    Status s;
    s.step = result.step, s.steps = result.steps;
    s.skipped_images = result.skipped_images;
    s.state = result.interrupted ? "interrupted" : "completed";
    s.code = result.interrupted ? static_cast<int>(Exit::try_again) : 0;
    if (result.interrupted)
      s.cause = "stopped on request", s.hint = "resume with: " + options_.resume_command;
    if (!result.stopped_early.empty()) s.cause = "stopped early: " + result.stopped_early;
    spdlog::info("{} at step {} of {}", s.state, s.step, s.steps);
    if (is_root()) {
      const OwnWork own("writing status.json");
      write_status(run_.path, s);
      if (!result.profile.empty()) say(stdout, "\n" + result.profile);
      if (!options_.trace_file.empty())
        say(stdout, fmt::format("Trace          {} (ui.perfetto.dev opens it)\n", options_.trace_file));
      if (result.interrupted)
        say(stderr, fmt::format("stopped at step {} of {}; a checkpoint stands in {}; resume with: {}\n",
                                result.step, result.steps, run_.path, options_.resume_command));
    }
    return leave(s.code);
  }

  // All ranks know of it and leave together.
  int fail_together(const AgreedError& e) {
    if (is_root()) {
      report_error(e.what());
      note_failure(run_, failed({}, e, step_));
    }
    return leave(e.code());
  }

  // A failure of this rank's own: the others wait in a collective, so nothing orderly can follow. The launcher
  // ends them.
  int fail_alone(Error e) {
    e.add_place("rank", std::to_string(comm_.rank()));
    report_error(e.what());
    note_failure(run_, failed({}, e, step_));
    report_.exit_code(e.code());
    comm_.leave(e);
    if (comm_.size() > 1) {
      std::fflush(nullptr);
      ::_exit(e.code());
    }
    return e.code();
  }

 private:
  bool is_root() const { return comm_.rank() == 0; }

  // mpirun takes a second or two over ranks that leave with anything but 0, and our launcher has the code already.
  int leave(int code) { return report_.exit_code(code) ? 0 : code; }

  // Its own end stands again.
  int leave_finished(const TrainingResult& result) {
    if (is_root()) {
      write_status(run_.path, run_.before);
      const std::string how = run_.before.cause.empty() ? "" : ", " + run_.before.cause;
      spdlog::info("finished before, nothing to do");
      say(stdout, fmt::format("The run in {} is finished: step {} of {}{}\n", run_.path, result.step,
                              result.steps, how));
    }
    return leave(0);
  }

  std::unique_ptr<DeviceCollectives> connect(DeviceRuntime& gpu) const {
    return make_nccl_collectives(gpu, comm_, {job_.deadline_seconds, std::ref(loss_), gradient_dtype(job_)});
  }

  // Not told by another rank, the step's thread waits in a collective or for the GPU, and touches nothing. Else rank 0
  // alone takes note, of a run that has begun. Rank 0 has the log; another rank that sees the folder writes there too.
  void note_loss(const Error& e, bool told) {
    if (told && !(run_.folder && run_.begun)) return;
    if (!run_.folder && is_there(run_.path + "/log.txt"))
      open_log(run_.path + "/log.txt", comm_.rank(), comm_.size());
    spdlog::info("{}", e.what());
    note_failure(run_, failed({}, e, report_.step()));
  }

  void note_step(int64_t done, int64_t steps) {
    report_.step(step_ = done);
    if (!is_root() || Clock::now() - last_status_ <= std::chrono::seconds(2)) return;
    Status s;
    s.step = done, s.steps = steps;
    const OwnWork own("writing status.json");
    // mpirun wakes a rank that was stopped before it ends it: whoever has lost this one has said so there.
    if (last_status(run_.path).state != "failed") write_status(run_.path, s);
    last_status_ = Clock::now();
  }

  const Job& job_;
  const FitOptions& options_;
  Communicator& comm_;
  RankReport& report_;
  PeerLoss& loss_;
  Run run_;
  int64_t step_ = 0;
  Clock::time_point last_status_;
};

}  // namespace

int run_rank(const Job& job, const FitOptions& options, Communicator& comm, RankReport& report,
             PeerLoss& loss) {
  RankRun rank(job, options, comm, report, loss);
  struct Told {
    explicit Told(RankRun& rank) {
      on_lost_mapping([&](const Error& e) { rank.fail_alone(e); });
    }
    ~Told() { on_lost_mapping({}); }
    Told(const Told&) = delete;
    Told& operator=(const Told&) = delete;
  } const told(rank);
  try {
    rank.open();
    return rank.finish(rank.train());
  } catch (const AgreedError& e) {
    return rank.fail_together(e);
  } catch (const Error& e) {
    return rank.fail_alone(e);
  } catch (const std::bad_alloc&) {
    return rank.fail_alone(out_of_memory());
  } catch (const std::exception& e) {
    return rank.fail_alone(Error(Exit::internal, "E_INTERNAL", e.what()));
  }
}

}  // namespace lockstep
