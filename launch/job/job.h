// SPDX-License-Identifier: Apache-2.0
// The job: what a YAML file describes, typed. Parsing, `--help-keys`, validation and docs/job-keys.md
// all come from one table (keys.cpp).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/diffusion/sampler.h"
#include "models/spec.h"
#include "runtime/data/dataset.h"
#include "runtime/training/config.h"
#include "runtime/training/resume.h"

namespace lockstep {

struct ObjectiveConfig {
  std::string name = "classification";  // classification, diffusion
  double snr_gamma = 0;
  double label_dropout = 0;
};

// What `lockstep sample` and the grids of a run in training do where nothing else is said.
struct SamplingConfig {
  int64_t every = 0;  // steps between grids; 0: at the end only
  std::string sampler = "ddim";
  int64_t steps = 50;
  double eta = 0, guidance = 1;
  int64_t count = 64;
  std::vector<std::string> prompts;  // of a model that reads text; empty: it is told nothing
};

struct Job {
  std::string file;    // the job file's path
  bool piped = false;  // it is a pipe, say, which is read once: relative paths are below the current folder
  std::string job_name;
  int64_t instance_count = 1;
  std::vector<std::string> hosts;  // "host:slots"
  std::string hostfile;
  std::string network_interface;            // by which hosts reach each other: a name or a subnet; empty: any
  std::string backend = "auto";             // mpi (alias gloo), nccl, auto
  std::string gradient_precision = "fp32";  // fp32, bf16: of gradients between ranks; bf16 over nccl only
  std::string device = "auto";              // auto, cpu, cuda, simt
  int64_t threads_per_rank = 0;             // 0: (affinity and cgroup quota) / ranks on the host
  double deadline_seconds = 300;            // of a collective
  double disk_deadline_seconds = 1800;      // of one that waits for a rank that is at its disk
  double start_deadline_seconds = 60;       // of the ranks, to meet; for each host
  ModelSpec model;
  DatasetConfig training;
  std::optional<DatasetConfig> validation, test;
  double validation_fraction = 0;
  TrainingConfig hyperparameters;
  CheckpointConfig checkpoint;
  StopConfig stop;
  ObjectiveConfig objective;
  diffusion::SchedulerConfig scheduler;
  SamplingConfig sampling;
  int64_t log_every = 50;           // steps between training lines in metrics.jsonl
  std::string output_dir = "runs";  // absolute once read
  // Key path -> `file:line:column` or `--set KEY`, for keys that were given; "" is the whole file. For
  // messages.
  std::map<std::string, std::string> where;
};

// Reads, overrides (`KEY.PATH=VALUE`, one per --set), validates. Everything that is wrong with the file is an
// Error(Exit::config) at file:line:column with the key and the nearest valid key or the range; a missing file
// is Exit::no_input, as is a pipe that nobody writes to; an override without KEY= Exit::usage. Every rank that
// reads the same text gets the same Job. `path`: "-" is standard input.
Job read_job(const std::string& path, const std::vector<std::string>& overrides);
// A job that the launcher has read from a pipe, resolved, for its ranks.
Job read_resolved_job(const std::string& text, const std::string& path);
// The run's resolved job. Error no_input (66) where the folder has none.
Job read_run_job(const std::string& run_folder);
// The resolved job as YAML: every key with its value, paths absolute; read_job of it gives the same Job.
std::string to_yaml(const Job& job);
// The diffusion objective as the trainer takes it; none: classification.
std::optional<DiffusionConfig> diffusion_config(const Job& job);
// SHA-256 (hex) of all that ranks must agree on: everything but the file's path, places and the output
// folder.
std::string job_hash(const Job& job);
// Every key with its value and its default, for comparing a run with its resumption.
JobValues job_values(const Job& job);
// The reference, as text for --help-keys and as Markdown for docs/job-keys.md.
std::string key_reference(bool markdown);

}  // namespace lockstep
