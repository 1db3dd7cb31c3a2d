// SPDX-License-Identifier: Apache-2.0
// `lockstep fit JOB`: trains, starting the ranks itself where nobody else has.
#include "launch/commands/fit.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "launch/commands/report_error.h"
#include "launch/job/availability.h"
#include "launch/launcher/allocation.h"
#include "launch/launcher/launcher.h"
#include "launch/launcher/other_launchers.h"
#include "launch/openmp_threads.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/comm/network_interface.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/device/stop_signal.h"
#include "runtime/telemetry/run_folder.h"

namespace lockstep {

extern const Command fit_command;

namespace {

// For the time from the process's start to its first step; ranks inherit the launcher's.
void note_start() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  ::setenv("LOCKSTEP_START_NS", std::to_string(now.tv_sec * 1000000000LL + now.tv_nsec).c_str(), 0);
}

std::string shell_word(const std::string& word) {
  if (word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,") ==
      std::string::npos)
    return word;
  std::string q = "'";
  for (char c : word) q += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return q + "'";
}

Resume read_resume(const std::string& how) {
  if (how == "always") return Resume::always;
  if (how == "auto") return Resume::where_possible;
  throw Error(Exit::usage, "E_OPTION",
              fmt::format("fit: --resume={}: expected --resume or --resume=auto", how));
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');)
    if (!word.empty()) words.push_back(word);
  return words;
}

// Boost would take the word behind --resume for its value.
Arguments with_resume_alone(Arguments arguments) {
  for (std::string& word : arguments.words)
    if (word == "--resume") word = "--resume=always";
  return arguments;
}

// The command line.
struct FitArguments {
  std::string file;
  std::vector<std::string> set;
  FitOptions options;
};

// None: it asked for help, which is given.
std::optional<FitArguments> read_fit_arguments(const Arguments& arguments) {
  namespace po = boost::program_options;
  FitArguments a;
  FitOptions& o = a.options;
  std::string resume, allow_change;
  po::options_description visible("Options"), hidden;
  visible.add_options()("set", po::value(&a.set)->value_name("KEY=VALUE"),
                        "override a key of the job (repeatable)")(
      "output", po::value(&o.output)->value_name("DIR"),
      "the run folder itself, instead of a numbered one below output.dir")(
      "resume", po::value(&resume)->implicit_value("always", "")->value_name("[=auto]"),
      "go on from the newest good checkpoint of the job's newest run, or of --output; auto: start where "
      "there is no run")(
      "allow-change", po::value(&allow_change)->value_name("KEY,..."),
      "with --resume: go on though these keys of the job are others than the run began with")(
      "retune", po::bool_switch(&o.retune),
      "with --resume: choose other kernels where this machine lacks the checkpoint's")(
      "trace", po::value(&o.trace_file)->value_name("FILE"),
      "write what all ranks do in ten steps as a Chrome trace")("profile", po::bool_switch(&o.profile),
                                                                "print the most expensive work of ten steps")(
      "help-keys", "what a job file may say");
  hidden.add_options()("job", po::value(&a.file))("help-keys-markdown", "the same for docs/job-keys.md");
  po::positional_options_description positional;
  positional.add("job", 1);
  const auto vm =
      parse_arguments(fit_command,
                      {"JOB", "lockstep fit configs/mnist_cnn.yaml --set hyperparameters.optimizer.lr=0.1",
                       visible, hidden, positional},
                      with_resume_alone(arguments));
  if (!vm) return std::nullopt;
  if (vm->count("help-keys") || vm->count("help-keys-markdown")) {
    print_out("{}", key_reference(vm->count("help-keys-markdown") > 0));
    return std::nullopt;
  }
  if (a.file.empty()) missing_argument(fit_command, "JOB");
  if (!resume.empty()) o.resume = read_resume(resume);
  o.allow_change = split_commas(allow_change);
  if (o.resume == Resume::never)
    for (const char* option : {"retune", "allow-change"})
      if (vm->count(option) && !vm->at(option).defaulted())
        throw Error(Exit::usage, "E_OPTION", fmt::format("fit: --{} goes with --resume", option));

  return a;
}

// --trace and --profile.
void expect_traceable(const Job& job, const FitOptions& o) {
  if ((o.profile || !o.trace_file.empty()) && device_of(job) == Device::cuda)
    throw Error(Exit::config, "E_TRACE_DEVICE",
                "fit: --trace and --profile see what the host computes, not a GPU")
        .hint("nsys profile lockstep fit ... shows the ops as NVTX ranges; or --set device=cpu");
  if (!o.trace_file.empty())
    if (const std::string folder = parent_folder(o.trace_file); ::access(folder.c_str(), W_OK) != 0)
      throw Error(Exit::cannot_create, "E_CANNOT_CREATE",
                  "cannot create the trace: no such folder, or not writable")
          .at("file", o.trace_file);
}

// What the user types to go on. A pipe's job stands in the run folder alone, with what --set said.
std::string resume_command(const Job& job, const FitArguments& a) {
  const std::string run = a.options.output.empty() ? "RUN" : shell_word(a.options.output);
  std::string command = "lockstep fit " + (job.piped ? run + "/job.yaml" : shell_word(a.file));
  if (!job.piped)
    for (const auto& s : a.set) command += " --set " + shell_word(s);
  if (!a.options.output.empty() || job.piped) command += " --output " + run;
  return command + " --resume";
}

std::unique_ptr<Communicator> make_communicator(const Job& job, const LauncherEnvironment& environment,
                                                PeerLoss& loss) {
  if (!environment.present || environment.size == 1) return make_self_communicator();
  CommOptions c;
  c.deadline_seconds = job.deadline_seconds;
  c.own_work_seconds = job.disk_deadline_seconds;
  c.on_peer_lost = std::ref(loss);
  c.fixed_order = job.hyperparameters.shards.has_value();
  return make_mpi_communicator(c);
}

int run_fit(const Arguments& arguments) {
  note_start();
  std::optional<FitArguments> a = read_fit_arguments(arguments);
  if (!a) return 0;
  FitOptions& o = a->options;
  const char* handed = std::getenv(kJobVariable);
  const LauncherEnvironment environment = launcher_environment();
  Job job = handed ? read_resolved_job(handed, a->file) : read_job(a->file, a->set);
  o.resume_command = resume_command(job, *a);
  require_usable_launcher("lockstep fit " + (job.piped ? "JOB" : shell_word(a->file)));
  if (!environment.present) job = on_allocated_nodes(std::move(job));
  // What a rank's machine lacks it says when the ranks have met (run_rank): the others may not lack it.
  environment.present ? require_built(job) : require_available(job);
  expect_traceable(job, o);

  if (starts_ranks(job)) {
    std::vector<std::string> words = {"fit"};
    words.insert(words.end(), arguments.words.begin(), arguments.words.end());
    return launch_ranks(job, words,
                        {o.resume_command, o.resume != Resume::never &&
                                               RunFolder::exists(job.output_dir, job.job_name, o.output)});
  }
  if (environment.present && environment.size != job.instance_count)
    throw Error(Exit::disagree, "E_RANK_COUNT",
                fmt::format("the job says instance_count: {}, the launcher started {} rank{}",
                            job.instance_count, environment.size, environment.size == 1 ? "" : "s"))
        .hint(
            fmt::format("start {} ranks, or --set instance_count={}", job.instance_count, environment.size));

  if (!job.piped) let_openmp_threads_sleep();
  if (!job.network_interface.empty() && environment.present) use_network_interface(job.network_interface);
  // Our launcher passes on what it gets, and ends the ranks itself at a second wish.
  install_stop_signals(RankReport::launched() ? SecondWish::is_ignored : SecondWish::stops_at_once);
  if (RankReport::launched()) take_share_of_cores(environment.local_rank, environment.local_size);
  RankReport report(environment.rank);  // from here on the launcher passes signals on
  PeerLoss loss(report, o.resume_command);
  const std::unique_ptr<Communicator> comm = make_communicator(job, environment, loss);
  report.met();
  return run_rank(job, o, *comm, report, loss);
}

}  // namespace

const Command fit_command{"fit", "train a job", run_fit};

}  // namespace lockstep
