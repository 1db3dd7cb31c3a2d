// SPDX-License-Identifier: Apache-2.0
// `lockstep check JOB`: everything that can be known before a rank starts.
#include <fmt/format.h>

#include <algorithm>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "launch/commands/memory_check.h"
#include "launch/job/availability.h"

namespace lockstep {

extern const Command check_command;

namespace {

// The first few classes with their samples.
void print_classes(const DatasetShape& data) {
  constexpr size_t kMost = 10;
  const auto& names = data.class_names;
  if (names.empty()) return;
  std::string text;
  for (size_t i = 0; i < std::min(kMost, names.size()); ++i)
    text += fmt::format("{}{}{}", i ? ", " : "", names[i],
                        data.class_counts.empty() ? "" : fmt::format(" {}", data.class_counts[i]));
  if (names.size() > kMost) text += fmt::format(" and {} more", names.size() - kMost);
  fmt::print("classes: {}\n", text);
}

int run_check(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string file;
  std::vector<std::string> set;
  po::options_description visible("Options"), hidden;
  visible.add_options()("set", po::value(&set)->value_name("KEY=VALUE"),
                        "override a key of the job (repeatable)")(
      "resolved", "print the job with every key, as a run folder keeps it");
  hidden.add_options()("job", po::value(&file));
  po::positional_options_description positional;
  positional.add("job", 1);
  const auto vm = parse_arguments(
      check_command, {"JOB", "lockstep check configs/mnist_cnn.yaml", visible, hidden, positional},
      arguments);
  if (!vm) return 0;
  if (file.empty()) missing_argument(check_command, "JOB");
  const Job job = read_job(file, set);
  require_available(job);
  CheckedJob c = check_job(job);
  if (vm->count("resolved")) {
    fmt::print("{}", to_yaml(job));
    return 0;
  }
  if (std::string warning = memory_warning(job, c); !warning.empty())
    c.warnings.push_back(std::move(warning));
  fmt::print(
      "{}: fine. {} training images of {}x{}x{} in {} classes; {} parameters; {} ranks; {} steps an epoch, "
      "{} in all\n",
      file, c.data.count, c.data.channels, c.data.height, c.data.width, c.data.classes, c.parameter_count,
      job.instance_count, c.steps_per_epoch, c.total_steps);
  print_classes(c.data);
  for (const std::string& warning : c.warnings) fmt::print("warning: {}\n", warning);
  if (job.hyperparameters.gradient_accumulation > 1 && c.has_batch_norm)
    fmt::print(
        "note: with gradient_accumulation {} batch norm's statistics cover one micro-batch of {} samples "
        "over all ranks\n",
        job.hyperparameters.gradient_accumulation,
        job.hyperparameters.global_batch_size / job.hyperparameters.gradient_accumulation);
  return 0;
}

}  // namespace

const Command check_command{"check", "check a job file, its data and its model without running it",
                            run_check};

}  // namespace lockstep
