// SPDX-License-Identifier: Apache-2.0
// The trainer's own parts: what is set up before the first step (trainer_setup.cpp) and the loop
// (trainer.cpp).
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/loader.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/trace.h"
#include "runtime/training/schedule.h"
#include "runtime/training/trainer.h"

namespace lockstep {

using Clock = std::chrono::steady_clock;
inline double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What must stay for a resumed run to be the same run: which samples each step sees, and how it is computed.
nlohmann::json trajectory(const TrainerOptions& options, int64_t samples);

class Trainer {
 public:
  Trainer(const TrainerOptions& options, Communicator& comm) : o_(options), comm_(comm) {}
  ~Trainer() { route_warnings({}); }

  TrainingResult run();

 private:
  bool root() const { return comm_.rank() == 0; }

  std::shared_ptr<const ImageSet> load(const DatasetConfig& config, const DatasetShape* like = nullptr);
  void load_data();

  // Rank 0 reads; what the session needs before it exists (kernel choices) goes to all ranks.
  void open_checkpoint();

  int64_t schedule_samples() const {
    return training_subset_.empty() ? training_->count() : static_cast<int64_t>(training_subset_.size());
  }

  void make_session();
  // Images of each set that is evaluated.
  std::vector<int64_t> evaluated_images() const;
  // Weights and optimizer from the checkpoint, from init_from, or fresh; the same on all ranks.
  void restore();
  // What must be equal on all ranks.
  std::vector<std::pair<std::string, std::string>> facts();
  void open_outputs();

  int64_t loader_depth() const { return lockstep::loader_depth(schedule_->micro_batches()); }

  Loader make_loader() const {
    return Loader(training_, training_subset_,
                  SampleOrder(schedule_samples(), o_.config.seed, o_.config.shuffle),
                  schedule_->nominal_part(), static_cast<int>(loader_depth()));
  }

  // Asks for this rank's micro-batches of a step.
  void request(Loader& loader, int64_t step) const {
    for (int64_t m = 0; m < schedule_->micro_batches(); ++m) request_micro(loader, step, m);
  }
  void request_micro(Loader& loader, int64_t step, int64_t m) const {
    const Slice p = schedule_->part(step, m, comm_.rank());
    loader.request(schedule_->epoch(step), schedule_->begin(step) + p.begin, p.size());
  }

  StepInputs inputs_for(const Batch& batch, int64_t step, int64_t micro) const;

  // A step whose results are on their way.
  struct Started {
    int64_t step = 0;
    Executor::Bound* plan = nullptr;
  };

  // The steps from step_ on. False where a stop was asked for. On a device that works on its own the next
  // step is started before the results of the last are read: a stop is seen one step later then, by all ranks
  // alike; steps after a loss that isn't finite change nothing (step_graph.h).
  bool loop();

  // Whether a checkpoint is due, a preview, or anything else to be done with the model as that step leaves
  // it.
  bool saves_after(int64_t step) const;
  bool shows_after(int64_t step) const {
    return step + 1 == schedule_->total_steps() || (o_.sample_every && (step + 1) % o_.sample_every == 0);
  }
  bool pauses_after(int64_t step) const;

  Started start_step(Loader& loader, int64_t step);

  // Starts the recording of --trace and --profile where it is this step's turn.
  void start_trace(int64_t step);
  // Writes it, once; collective.
  void finish_trace();

  // Every rank comes here, since the loss is the global one; no parameter has been touched by this step.
  [[noreturn]] void report_divergence(int64_t step, double loss);

  void note_step(int64_t step, double loss_sum, double correct);

  double rate() const {
    return training_seconds_ > 0 ? static_cast<double>(samples_seen_) / training_seconds_ : 0;
  }

  void end_epoch();

  void show();

  // Before any of it is written: diverged (80) that names a tensor which is not finite. On rank 0, the model
  // being on the host.
  void expect_finite(std::span<const StoredTensor> tensors) const;
  // Of the model as it is now; where the loss is not finite, the tensor that is to blame is named. Collective.
  Score score(const ImageSet& images, const std::vector<int64_t>& subset);

  // Rank 0 writes; an I/O error there is everybody's.
  void save();

  // The weights in the run folder, beside what the model is.
  void export_model();
  std::optional<Score> finish();

  Communicator& comm_control() { return session_->control(); }
  double elapsed() const { return earlier_seconds_ + since(created_); }

  struct Sums {
    double loss_sum = 0, correct = 0;
    int64_t count = 0;
    void add(double l, double c, int64_t n) { loss_sum += l, correct += c, count += n; }
    double loss() const { return count ? loss_sum / static_cast<double>(count) : 0; }
    double accuracy() const { return count ? correct / static_cast<double>(count) : 0; }
  };

  std::optional<double> accuracy_of(const Sums& s) const {
    return o_.config.diffusion ? std::nullopt : std::optional(s.accuracy());
  }
  MetricsLine line_of(const std::string& split, const Score& s) const;
  MetricsLine line_of(const std::string& split, const Sums& s) const;

  const TrainerOptions& o_;
  Communicator& comm_;
  const Clock::time_point created_ = Clock::now();

  std::shared_ptr<const ImageSet> training_, validation_, test_;
  std::vector<int64_t> training_subset_, validation_subset_;
  std::unique_ptr<Schedule> schedule_;
  std::unique_ptr<Session> session_;
  std::optional<LoadedCheckpoint> checkpoint_;
  nlohmann::json meta_;
  nlohmann::ordered_json description_;  // model.json, on rank 0
  bool bit_exact_ = true;

  int64_t step_ = 0, saved_step_ = -1;
  double training_seconds_ = 0, earlier_seconds_ = 0;
  int64_t samples_seen_ = 0, skipped_images_ = 0;
  std::optional<double> best_;
  bool best_is_new_ = false;
  std::string best_folder_;

  Clock::time_point step_start_, window_start_;
  double data_wait_ = 0;
  Sums window_, epoch_;
  MetricsLine test_line_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<TensorBoardWriter> tensorboard_;
  std::unique_ptr<Progress> progress_;

  std::optional<Trace> trace_;
  int64_t traced_from_ = -1;  // first step recorded
  std::string profile_;
};

}  // namespace lockstep
