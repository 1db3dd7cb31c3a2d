// SPDX-License-Identifier: Apache-2.0
// The training loop of one rank: steps, metrics, validation, checkpoints, stopping and resuming.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/communicator.h"
#include "runtime/data/dataset.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/text/clip_tokenizer.h"
#include "runtime/training/config.h"
#include "runtime/training/evaluation.h"
#include "runtime/training/resume.h"
#include "runtime/training/session.h"

namespace lockstep {

// Batches that a rank's loader has in flight: this step's micro-batches and the next one's, at least.
inline int64_t loader_depth(int64_t micro_batches) { return std::max<int64_t>(4, 2 * micro_batches); }

struct TrainerOptions {
  // Of images of this shape.
  std::function<std::shared_ptr<const Objective>(const InputShape&)> objective;
  // What else is asked of the model, whose parameters it has beside the objective's.
  std::function<std::vector<Program>(const InputShape&)> programs = [](const InputShape&) {
    return std::vector<Program>();
  };
  std::string init_from;                           // weights to start from; empty: fresh
  std::shared_ptr<const ClipTokenizer> tokenizer;  // of a model that reads captions; else null
  DatasetConfig training_data;
  std::optional<DatasetConfig> validation_data, test_data;
  double validation_fraction = 0;
  TrainingConfig config;
  CheckpointConfig checkpoint;
  StopConfig stop;
  int64_t log_every = 50;
  KernelChoice kernels;
  DeviceRuntime* device = nullptr;  // as SessionOptions has them
  DeviceCollectives* collectives = nullptr;
  std::string gradient_precision = "fp32";  // fp32, bf16: what the collectives sum gradients as
  std::string run_folder;                   // used by rank 0
  std::string job_hash;                     // for the checkpoints
  JobValues job;                            // what a resumed run's checkpoint must agree with ...
  std::vector<std::string> allow_change;    // ... but for these keys
  bool resume = false, retune = false;
  bool was_completed = false;  // rank 0's: the run that is resumed had come to its end
  std::function<bool()> stop_requested = [] { return false; };
  // Shows what a diffusion model makes by now, every `sample_every` steps (0: never) and at the end.
  // Collective; the event file is rank 0's, null elsewhere.
  int64_t sample_every = 0;
  std::function<void(Session& session, const InputShape& input, int64_t step, const std::string& run_folder,
                     TensorBoardWriter* events)>
      preview;
  // What the model says of itself (model.json), of a training set of this shape and the content hashes of
  // training, validation and test; on rank 0. It stands beside the weights wherever they are written.
  std::function<nlohmann::ordered_json(const DatasetShape& training,
                                       const std::map<std::string, std::string>& data)>
      describe = [](const DatasetShape&, const auto&) { return nlohmann::ordered_json::object(); };
  // What to warn of in the model that `init_from` holds, or an error where it cannot be that; on rank 0, of a run that begins.
  std::function<std::vector<std::string>(const DatasetShape& training, const SafetensorsFile& weights)>
      source_remarks = [](const DatasetShape&, const auto&) { return std::vector<std::string>(); };
  // The weights for other programs, in the run folder: a file for each network.
  struct ExportedFile {
    std::string file, network;
  };
  std::vector<ExportedFile> exported = {{"model.safetensors", ""}};
  // Writes what stands beside them, on rank 0; the weights are then exported with each checkpoint. None: at the
  // end alone.
  std::function<void(const InputShape& input, const std::string& run_folder)> export_configuration;
  // On every rank, when nothing more stands before the first step: steps done before.
  std::function<void(int64_t step)> on_ready = [](int64_t) {};
  // After each step, on every rank: steps done, and how many there will be.
  std::function<void(int64_t step, int64_t steps)> on_step = [](int64_t, int64_t) {};
  // Where the executor computes on the host only. A Chrome trace of ten steps of all ranks into this file; a
  // table of rank 0's most expensive work in the same steps.
  std::string trace_file;
  bool profile = false;
  double start_seconds = 0;  // what passed between the process's start and the trainer's, for the log
};

struct TrainingResult {
  bool interrupted = false;   // stopped on request: a checkpoint stands, resume goes on
  bool was_finished = false;  // nothing was left to do
  std::string stopped_early;  // why, where it ended before its last step
  int64_t step = 0, steps = 0;
  double training_seconds = 0;  // in training steps, all parts of a resumed run
  double samples_per_second = 0;
  int64_t skipped_images = 0;  // of all sets, left out by on_bad_image: skip
  std::optional<Score> test;
  std::string profile;  // the table, on rank 0
};

// Collective. Throws AgreedError where all ranks fail alike, Error where this one does.
TrainingResult train(const TrainerOptions& options, Communicator& comm);

// The network's input from a data set, its `normalize` (one mean and deviation per channel) and `augment`.
// Error config (78): a random crop larger than the images.
InputShape input_shape(const DatasetConfig& config, const DatasetShape& data);
// Error data (65) where a set's images, once random windows are cut, are not of the size that the model takes.
void expect_size(const DatasetConfig& config, const DatasetShape& data, const InputShape& input);

}  // namespace lockstep
