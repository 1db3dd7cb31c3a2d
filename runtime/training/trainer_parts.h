// SPDX-License-Identifier: Apache-2.0
// The trainer's own parts: what is set up before the first step (trainer_setup.cpp) and the loop
// (trainer.cpp).
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/weights_hash.h"
#include "runtime/data/loader.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/trace.h"
#include "runtime/training/early_stop.h"
#include "runtime/training/encoded_set.h"
#include "runtime/training/saved_state.h"
#include "runtime/training/schedule.h"
#include "runtime/training/trainer.h"

namespace lockstep {

using Clock = std::chrono::steady_clock;
inline double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Trainer {
 public:
  Trainer(const TrainerOptions& options, Communicator& comm) : o_(options), comm_(comm) {}
  ~Trainer() { route_warnings({}); }

  TrainingResult run();

 private:
  bool root() const { return comm_.rank() == 0; }

  std::shared_ptr<const SampleSource> load(const std::string& key, const DatasetConfig& config,
                                           const DatasetShape* like = nullptr);
  void load_data();
  // What goes into the run must be the same on all ranks: data sets, and the weights to start from where a rank has them.
  void agree_on_inputs();

  // Rank 0 reads; what the session needs before it exists (kernel choices) goes to all ranks.
  void open_checkpoint();
  std::string meta_file() const;  // of the checkpoint, on rank 0
  // Rank 0's: whether this is the run that the checkpoint was written by, and what was allowed to change.
  void compare_with_checkpoint();
  void note_changes(const std::vector<Difference>& changes);
  // Of the last of so many steps, and of the next.
  struct LearningRates {
    double last, next;
    int64_t steps;
  };
  LearningRates learning_rates(int64_t done) const;
  // A word where the schedule, stretched over another total of steps, makes the rate jump.
  void compare_learning_rates(int64_t done);

  int64_t schedule_samples() const {
    return training_subset_.empty() ? training_->count() : static_cast<int64_t>(training_subset_.size());
  }

  void make_session();
  // Images of each set that is evaluated.
  std::vector<int64_t> evaluated_images() const;
  // Weights and optimizer from the checkpoint, from init_from, or fresh; the same on all ranks.
  void restore();
  // What else must be equal on all ranks.
  std::vector<std::pair<std::string, std::string>> facts();
  // inputs.training.cache: what frozen networks make of the training set.
  void encode_training_set();
  void open_outputs();

  int64_t loader_depth() const { return lockstep::loader_depth(schedule_->micro_batches()); }

  Loader make_loader() const {
    return Loader(encoded_ ? encoded_ : training_, training_subset_,
                  SampleOrder(schedule_samples(), o_.config.seed, o_.config.shuffle),
                  schedule_->nominal_part(), static_cast<int>(loader_depth()), caption_tokens());
  }
  CaptionTokens caption_tokens() const;

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

  // Scores of this step, computed and written once. Collective, as all below.
  const Score& validate();
  const Score& test();
  // What is due after a step: validation at an epoch's end, and the metric that training may stop by.
  void look();
  void end_epoch();

  void show();

  // Before any of it is written: diverged (80) that names a tensor which is not finite. On rank 0, the model
  // being on the host.
  void expect_finite(std::span<const StoredTensor> tensors) const;
  // Of the model as it is now; where the loss is not finite, the tensor that is to blame is named. Collective.
  Score score(const SampleSource& images, const std::vector<int64_t>& subset);

  // Rank 0 writes; an I/O error there is everybody's.
  void save();

  // Stands beside the weights wherever they are written.
  void write_tokenizer(const std::string& folder) const;
  // The weights in the run folder, beside what the model is.
  void export_model();
  void finish();

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
    return objective_->counts_right_answers() ? std::optional(s.accuracy()) : std::nullopt;
  }
  void write(const MetricsLine& line);  // on rank 0
  MetricsLine line_of(const std::string& split, const Score& s) const;
  MetricsLine line_of(const std::string& split, const Sums& s) const;

  const TrainerOptions& o_;
  Communicator& comm_;
  const Clock::time_point created_ = Clock::now();

  std::shared_ptr<const SampleSource> training_, validation_, test_;
  std::shared_ptr<const EncodedSet> encoded_;  // the training set once more; null: not asked for
  std::vector<int64_t> training_subset_, validation_subset_;
  InputShape input_;  // of the training set
  std::shared_ptr<const Objective> objective_;
  RunRecord record_{o_.job, {}, {}};
  std::unique_ptr<Schedule> schedule_;
  EarlyStop early_{o_.stop};
  std::unique_ptr<Session> session_;
  std::optional<LoadedCheckpoint> checkpoint_;
  std::shared_ptr<const SafetensorsFile> weights_;  // to start from, until they are loaded
  std::optional<SavedState> saved_;
  nlohmann::ordered_json description_;                // model.json, on rank 0
  nlohmann::json changes_ = nlohmann::json::array();  // what was allowed to change when the run was resumed
  bool was_finished_ = false;
  bool bit_exact_ = true;

  int64_t step_ = 0, saved_step_ = -1, exported_step_ = -1;
  FileHashes exported_hashes_;  // of the files of weights that this process wrote
  double training_seconds_ = 0, earlier_seconds_ = 0;
  int64_t samples_seen_ = 0, skipped_images_ = 0;
  std::optional<double> best_;
  bool best_is_new_ = false;
  std::string best_folder_;

  Clock::time_point step_start_, window_start_;
  double data_wait_ = 0;
  Sums window_, epoch_;
  struct Scored {
    int64_t step = -1;
    Score score;
    MetricsLine line;
  };
  Scored validated_, tested_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<TensorBoardWriter> tensorboard_;
  std::unique_ptr<Progress> progress_;

  std::optional<Trace> trace_;
  int64_t traced_from_ = -1;  // first step recorded
  std::string profile_;
};

}  // namespace lockstep
