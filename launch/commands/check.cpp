// SPDX-License-Identifier: Apache-2.0
// `lockstep check JOB`: everything that can be known before a rank starts.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "launch/commands/memory_check.h"
#include "launch/commands/source_model.h"
#include "launch/job/availability.h"
#include "launch/launcher/launcher.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/files/path.h"
#include "runtime/files/utf8.h"
#include "runtime/telemetry/say.h"
#include "runtime/training/state_io.h"

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
    text += fmt::format("{}{}{}", i ? ", " : "", printable(names[i]),
                        data.class_counts.empty() ? "" : fmt::format(" {}", data.class_counts[i]));
  if (names.size() > kMost) text += fmt::format(" and {} more", names.size() - kMost);
  print_out("classes: {}\n", text);
}

// What `fit` would meet between its start and its first step. Returns what it would remark in its log.
std::vector<std::string> check_files(const Job& job, CheckedJob& c) {
  if (!job.model.init_from.empty()) try {
      const auto weights = open_model(job.model.init_from);
      const auto remarks = source_remarks(job, c.data, *weights);
      c.warnings.insert(c.warnings.end(), remarks.begin(), remarks.end());
      check_model_tensors(c.table, *weights, job.model.init_from);
    } catch (Error& e) {
      if (const auto where = job.where.find("model.init_from"); where != job.where.end())
        e.add_place("job", where->second), e.add_place("key", "model.init_from");
      throw;
    }
  expect_writable(job.output_dir);
  constexpr size_t kMost = 10;
  std::vector<std::string> notes;
  bool pictures = false;
  for (const auto& data : {std::optional(job.training), job.validation, job.test}) {
    if (!data) continue;
    DatasetFiles files = inspect_dataset(*data);
    pictures = pictures || files.pictures;
    if (const size_t all = files.remarks.size(); all > kMost) {
      files.remarks.resize(kMost);
      files.remarks.push_back(fmt::format("and {} more files", all - kMost));
    }
    notes.insert(notes.end(), files.remarks.begin(), files.remarks.end());
  }
  if (pictures)
    notes.emplace_back("check does not decode pictures: damage behind their headers is seen by fit");
  return notes;
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
  if (starts_ranks(job)) require_launchable(job);
  CheckedJob c = check_job(job);
  if (vm->count("resolved")) {
    print_out("{}", to_yaml(job));
    return 0;
  }
  if (std::string warning = memory_warning(job, c); !warning.empty())
    c.warnings.push_back(std::move(warning));
  const std::vector<std::string> notes = check_files(job, c);
  print_out(
      "{}: fine. {} training images of {}x{}x{} in {} classes; {}; {} ranks; {} steps an epoch, "
      "{} in all\n",
      file, c.data.count, c.data.channels, c.data.height, c.data.width, c.data.classes, c.parameters.text(),
      job.instance_count, c.steps_per_epoch, c.total_steps);
  print_classes(c.data);
  for (const std::string& warning : c.warnings) print_out("warning: {}\n", warning);
  for (const std::string& note : notes) print_out("note: {}\n", note);
  if (job.hyperparameters.gradient_accumulation > 1 && !c.table.buffers.empty())
    print_out(
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
