// SPDX-License-Identifier: Apache-2.0
// What a run folder says of its run.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/model_description.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/run_folder.h"

namespace lockstep::report {

using KeyValues = std::vector<std::pair<std::string, std::string>>;

// Of plan.json: one step of training, on rank 0. 0: it does not say.
struct PlanSummary {
  int64_t ranks = 0, batch_per_rank = 0, flops = 0, peak_bytes = 0, activation_bytes = 0;
  struct Op {
    std::string name, kernels;  // "lanes, highway"; "": it has none
    int64_t nodes = 0, flops = 0;
  };
  std::vector<Op> ops;  // most FLOPs first
};

struct SampleGrid {
  std::string file;  // within the run folder
  std::string png;   // its bytes, which decode
  int64_t height = 0, width = 0;
};

struct RunRecord {
  std::string folder, name;        // as the user named it; its last part
  KeyValues job;                   // "hyperparameters.optimizer.lr", "0.05"; in the file's order
  std::vector<MetricsLine> lines;  // in order; null is NaN
  std::optional<Status> status;
  std::optional<PlanSummary> plan;
  std::optional<ModelDescription> model;
  std::vector<SampleGrid> samples;  // of several, kMostGrids: the first, the last, and some between them
  size_t samples_there = 0;
};
inline constexpr size_t kMostGrids = 6;

// What is missing is left empty, but for job.yaml; so is a last line of metrics that is not whole, as a run may be at it. Errors:
// no_input (66) E_RUN_NONE, data (65) at file:line for what is damaged, config (78) for a damaged job.yaml.
RunRecord read_run_record(const std::string& folder);

// The lines of a metrics.jsonl. `file`: for errors. Error data (65) E_METRICS.
std::vector<MetricsLine> read_metrics(std::string_view text, const std::string& file);
// A job's keys, each with its value; a list of values is one, a list of maps is a key an element: "model.layers[2]".
KeyValues flat_job(std::string_view yaml, const std::string& file);

}  // namespace lockstep::report
