#include "runtime/training/trainer.h"

#include <spdlog/spdlog.h>

#include <array>
#include <chrono>
#include <cmath>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/agree.h"
#include "runtime/comm/together.h"
#include "runtime/data/hash.h"
#include "runtime/data/loader.h"
#include "runtime/device/memory.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/run_folder.h"
#include "runtime/training/schedule.h"
#include "runtime/training/state_io.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string hash_of(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

// What must stay for a resumed run to be the same run: which samples each step sees, and how it is computed.
json trajectory(const TrainerOptions& o, int64_t samples) {
  const auto& c = o.config;
  const auto& opt = c.optimizer;
  return {{"training_samples", samples},
          {"global_batch_size", c.global_batch_size},
          {"gradient_accumulation", c.gradient_accumulation},
          {"seed", c.seed},
          {"shuffle", c.shuffle},
          {"drop_last", c.drop_last},
          {"flip", o.training_data.augment.flip},
          {"crop_padding", o.training_data.augment.crop_padding},
          {"optimizer", opt.name},
          {"objective", c.diffusion ? "diffusion" : "classification"},
          {"precision", c.precision},
          {"ema", c.ema.decay.has_value()}};
}

class Trainer {
 public:
  Trainer(const TrainerOptions& options, Communicator& comm) : o_(options), comm_(comm) {}
  ~Trainer() { route_warnings({}); }

  TrainingResult run() {
    load_data();
    open_checkpoint();
    make_session();
    restore();
    require_agreement(comm_, facts());
    open_outputs();
    const bool finished = loop();
    TrainingResult r;
    r.interrupted = !finished;
    r.step = step_, r.steps = schedule_->total_steps();
    r.skipped_images = skipped_images_;
    if (finished) r.test = finish();
    r.training_seconds = training_seconds_;
    r.samples_per_second = training_seconds_ > 0 ? static_cast<double>(samples_seen_) / training_seconds_ : 0;
    spdlog::info("memory of tensors: at most {} bytes", peak_allocated_bytes());
    if (root() && finished)
      progress_->finish(r.test ? &test_line_ : nullptr, r.training_seconds, r.samples_per_second, o_.run_folder);
    return r;
  }

 private:
  bool root() const { return comm_.rank() == 0; }

  std::shared_ptr<const ImageSet> load(const DatasetConfig& config) {
    auto set = load_dataset(config, o_.kernels.threads);
    const auto left_out = static_cast<int64_t>(set->skipped.size());
    skipped_images_ += left_out;
    if (root() && left_out > 0) {
      for (const std::string& image : set->skipped) spdlog::info("skipped {}", image);
      spdlog::warn("{} of {} images in {} are damaged and were skipped; the log names them", left_out,
                   left_out + set->count(), config.path);
    }
    return set;
  }

  void load_data() {
    together(comm_, [&] {
      training_ = load(o_.training_data);
      if (o_.validation_data) validation_ = load(*o_.validation_data);
      if (o_.test_data) test_ = load(*o_.test_data);
      if (o_.validation_fraction > 0) {
        validation_subset_ = validation_indices(training_->count(), o_.validation_fraction, o_.config.seed);
        training_subset_ = training_indices(training_->count(), o_.validation_fraction, o_.config.seed);
        validation_ = training_;
      }
      for (const auto* other : {validation_.get(), test_.get()})
        if (other && (other->channels != training_->channels || other->height != training_->height ||
                      other->width != training_->width || other->classes > training_->classes))
          throw Error(Exit::data, "E_DATA_SHAPE",
                      fmt::format("training images are {}x{}x{} in {} classes, the others {}x{}x{} in {}",
                                  training_->channels, training_->height, training_->width, training_->classes,
                                  other->channels, other->height, other->width, other->classes));
    });
    const int64_t samples = training_subset_.empty() ? training_->count() : static_cast<int64_t>(training_subset_.size());
    schedule_ = std::make_unique<Schedule>(o_.config, samples, comm_.size());
  }

  // Rank 0 reads; what the session needs before it exists (kernel choices) goes to all ranks.
  void open_checkpoint() {
    const std::string text = on_root(comm_, [&]() -> std::string {
      if (!o_.resume) return "";
      checkpoint_ = load_newest_checkpoint(o_.run_folder, [](const std::string& w) { spdlog::warn("{}", w); });
      if (!checkpoint_) {  // stopped before its first one
        spdlog::warn("no checkpoint in {}: the run starts from the beginning", o_.run_folder);
        return "";
      }
      const json expected = trajectory(o_, schedule_samples());
      const json& stored = checkpoint_->meta.at("trajectory");
      for (const auto& [key, value] : expected.items())
        if (!stored.contains(key) || stored[key] != value)
          throw Error(Exit::config, "E_RESUME_JOB",
                      fmt::format("the checkpoint was written with {} {}, the job says {}", key,
                                  stored.contains(key) ? stored[key].dump() : "unset", value.dump()))
              .at("checkpoint", checkpoint_->folder)
              .hint("a resumed run must go on as it began; start a new run for other settings");
      return checkpoint_->meta.dump();
    });
    if (!text.empty()) meta_ = json::parse(text);
  }

  int64_t schedule_samples() const {
    return training_subset_.empty() ? training_->count() : static_cast<int64_t>(training_subset_.size());
  }

  void make_session() {
    SessionOptions s;
    s.model = o_.model;
    s.input = input_shape(o_.training_data, training_->channels, training_->height, training_->width, training_->classes);
    s.config = o_.config;
    s.kernels = o_.kernels;
    s.device = o_.device;
    s.collectives = o_.collectives;
    if (!meta_.is_null())
      for (const auto& [signature, kernel] : meta_.at("kernels").items()) s.pinned[signature] = kernel;
    s.retune = o_.retune;
    if (!meta_.is_null()) bit_exact_ = meta_.at("bit_exact");
    session_ = std::make_unique<Session>(std::move(s), comm_);
    session_->prepare_training(schedule_->nominal_part());
    bit_exact_ &= !session_->retuned();
    for (int64_t images : evaluated_images())
      session_->prepare_evaluation(evaluation_batch(images, comm_.size()));
    // Every plan of this rank now, so that no step allocates and the arena has its size.
    const int64_t a = o_.config.gradient_accumulation;
    for (int64_t m = 0; m < a; ++m)
      for (int64_t n : schedule_->part_sizes(m, comm_.rank())) session_->training(n, m > 0, m + 1 == a);
    for (int64_t images : evaluated_images())
      if (const int64_t mine = slice_of(images, comm_.size(), comm_.rank()).size(); mine > 0)
        session_->evaluation(std::min(kEvaluationBatch, mine));
  }

  std::vector<int64_t> evaluated_images() const {
    std::vector<int64_t> counts;
    if (validation_)
      counts.push_back(validation_subset_.empty() ? validation_->count() : static_cast<int64_t>(validation_subset_.size()));
    if (test_) counts.push_back(test_->count());
    return counts;
  }

  void restore() {
    ModelState& m = session_->model();
    on_root(comm_, [&]() -> std::string {
      if (checkpoint_) {
        load_averaged_tensors(m, *checkpoint_->model, checkpoint_->folder + "/model.safetensors");
        load_optimizer_tensors(m, *checkpoint_->state, checkpoint_->folder + "/state.safetensors");
      } else {
        m.initialise(o_.config.seed);
        if (!o_.init_from.empty()) load_model_tensors(m, *open_model(o_.init_from), o_.init_from);
        m.batches_tracked = 0;
        m.start_ema();
      }
      return "";
    });
    auto share = [&](AlignedBuffer& b) { comm_.broadcast({b.as<std::byte>(), static_cast<size_t>(b.bytes())}, 0); };
    share(m.parameters), share(m.buffers);
    for (auto& s : m.state) share(s);
    if (m.has_ema()) share(m.ema);
    session_->executor().upload_model();
    if (!meta_.is_null()) {
      step_ = meta_.at("step");
      m.batches_tracked = meta_.at("batches_tracked");
      earlier_seconds_ = meta_.at("seconds");
      training_seconds_ = meta_.at("training_seconds");
      samples_seen_ = meta_.at("samples_seen");
      if (meta_.contains("best")) best_ = meta_.at("best").get<double>(), best_folder_ = meta_.at("best_folder");
    }
    checkpoint_.reset();
  }

  std::vector<std::pair<std::string, std::string>> facts() {
    std::string kernels;
    for (const auto& [signature, kernel] : session_->kernel_table()) kernels += signature + " = " + kernel + "\n";
    // Of the variant that finishes a step: it holds every collective; local batch sizes differ and are left out.
    const int64_t a = o_.config.gradient_accumulation;
    const int64_t n = *schedule_->part_sizes(a - 1, comm_.rank()).rbegin();
    return {{"resolved job", o_.job_hash},
            {"data", fmt::format("{} training samples of {}x{}x{}, {} classes", schedule_samples(), training_->channels,
                                 training_->height, training_->width, training_->classes)},
            {"parameter layout", hash_of(session_->model().table.text())},
            {"kernel table", hash_of(kernels)},
            {"collective schedule", hash_of(session_->training(n, a > 1, true).plan->collective_schedule())}};
  }

  void open_outputs() {
    if (!root()) return;
    metrics_ = std::make_unique<MetricsWriter>(o_.run_folder + "/metrics.jsonl",
                                               o_.resume ? std::optional(step_) : std::nullopt);
    tensorboard_ = std::make_unique<TensorBoardWriter>(o_.run_folder + "/tensorboard",
                                                       o_.resume ? std::optional(step_) : std::nullopt);
    const int64_t spe = schedule_->steps_per_epoch();
    progress_ = std::make_unique<Progress>(stdout, Progress::detect(), (schedule_->total_steps() + spe - 1) / spe, spe);
    route_warnings([this](const std::string& w) { progress_->message(w); });
    const int64_t n = schedule_->nominal_part(), a = o_.config.gradient_accumulation;
    json plan = to_json(*session_->training(n, a > 1, true).plan);
    plan["kernels"] = session_->kernel_table();
    plan["ranks"] = comm_.size();
    plan["batch_per_rank"] = n;
    plan["memory"] = {{"peak", session_->memory().total()}, {"activations", session_->memory().arena}};
    plan["bit_exact"] = bit_exact_;
    write_file_atomically(o_.run_folder + "/plan.json", plan.dump(1) + "\n");
  }

  int64_t loader_depth() const { return lockstep::loader_depth(o_.config); }

  Loader make_loader() const {
    return Loader(training_, training_subset_, Sampler(schedule_samples(), o_.config.seed, o_.config.shuffle),
                  schedule_->nominal_part(), static_cast<int>(loader_depth()));
  }

  // Asks for this rank's micro-batches of a step.
  void request(Loader& loader, int64_t step) const {
    for (int64_t m = 0; m < o_.config.gradient_accumulation; ++m) request_micro(loader, step, m);
  }
  void request_micro(Loader& loader, int64_t step, int64_t m) const {
    const Slice p = schedule_->part(step, m, comm_.rank());
    loader.request(schedule_->epoch(step), schedule_->begin(step) + p.begin, p.size());
  }

  StepInputs inputs_for(const Batch& batch, int64_t step, int64_t micro) const {
    StepInputs in{batch.images.data(), batch.labels.data(), {}};
    in.state.seed = o_.config.seed;
    in.state.step = step;
    in.state.first_sample = schedule_->part(step, micro, comm_.rank()).begin;
    in.state.global_samples = schedule_->global_samples(step);
    if (o_.config.ema.decay) in.state.ema_gain = static_cast<float>(1 - ema_decay(o_.config.ema, step + 1));
    in.state.lr = static_cast<float>(lr_at(o_.config.lr_schedule, o_.config.optimizer.lr, step, schedule_->total_steps()));
    return in;
  }

  // A step whose results are on their way.
  struct Started {
    int64_t step = 0;
    Executor::Bound* plan = nullptr;
  };

  // The steps from step_ on. False where a stop was asked for. On a device that works on its own the next
  // step is started before the results of the last are read: a stop is seen one step later then, by all ranks
  // alike; steps after a loss that isn't finite change nothing (step_graph.h).
  bool loop() {
    const int64_t total = schedule_->total_steps(), spe = schedule_->steps_per_epoch();
    Loader loader = make_loader();
    const int64_t ahead = loader_depth() / o_.config.gradient_accumulation - 1;  // whole steps
    int64_t requested = step_, next = step_;
    std::array<Started, 2> under_way;
    size_t count = 0;
    bool stop = false;
    window_start_ = step_start_ = Clock::now();
    while (step_ < total) {
      const bool pauses = count > 0 && pauses_after(under_way[count - 1].step);
      if (next < total && !stop && !pauses) {
        for (; requested < std::min(total, next + 1 + ahead); ++requested) request(loader, requested);
        under_way[count++] = start_step(loader, next++);
        if (session_->executor().runs_ahead() && count < under_way.size() && !pauses_after(next - 1))
          continue;
      }
      const Started done = under_way[0];
      under_way[0] = under_way[--count];
      session_->executor().await_results(*done.plan);
      const float* metrics = session_->model().gradients.as<float>();
      const double loss = double{metrics[0]} / static_cast<double>(schedule_->global_samples(done.step));
      if (!std::isfinite(loss)) {
        if (count > 0) session_->executor().await_results(*under_way[0].plan);
        report_divergence(done.step, loss);
      }
      stop |= metrics[kStopMetric] > 0;
      training_seconds_ += since(step_start_);
      step_start_ = Clock::now();
      data_wait_ += loader.take_wait_seconds();
      if (samples_seen_ == 0) spdlog::info("first step done {:.3f} s after the start", o_.start_seconds + since(created_));
      samples_seen_ += schedule_->global_samples(done.step);
      ++step_;
      o_.on_step(step_, total);
      note_step(done.step, metrics[0], metrics[1]);

      if (count > 0) continue;
      if (step_ % spe == 0) end_epoch();
      if (stop || saves_after(done.step)) save();
      if (o_.preview && shows_after(done.step)) show();
      if (stop && step_ < total) return false;
      step_start_ = Clock::now();
    }
    if (total % spe != 0) end_epoch();
    return true;
  }

  // Whether a checkpoint is due, a preview, or anything else to be done with the model as that step leaves it.
  bool saves_after(int64_t step) const {
    const auto& c = o_.checkpoint;
    const int64_t done = step + 1, spe = schedule_->steps_per_epoch();
    return done == schedule_->total_steps() || (c.every_steps && done % *c.every_steps == 0) ||
           (c.every_epochs && done % spe == 0 && (done / spe) % *c.every_epochs == 0);
  }
  bool shows_after(int64_t step) const {
    return step + 1 == schedule_->total_steps() || (o_.sample_every && (step + 1) % o_.sample_every == 0);
  }
  bool pauses_after(int64_t step) const {
    return saves_after(step) || shows_after(step) || (step + 1) % schedule_->steps_per_epoch() == 0;
  }

  Started start_step(Loader& loader, int64_t step) {
    const int64_t a = o_.config.gradient_accumulation;
    Executor::Bound* plan = nullptr;
    for (int64_t m = 0; m < a; ++m) {
      const Batch& batch = loader.next();
      StepInputs inputs = inputs_for(batch, step, m);
      inputs.stop = m + 1 == a && o_.stop_requested();
      plan = session_->training(batch.count, m > 0, m + 1 == a).bound;
      session_->executor().start(*plan, inputs);
    }
    session_->executor().send_results(*plan);
    session_->model().batches_tracked += a;
    return {step, plan};
  }

  // Every rank comes here, since the loss is the global one; no parameter has been touched by this step.
  [[noreturn]] void report_divergence(int64_t step, double loss) {
    Loader loader = make_loader();
    std::string first;
    for (int64_t m = 0; m < o_.config.gradient_accumulation; ++m) {
      request_micro(loader, step, m);
      const Batch& batch = loader.next();
      const bool last = m + 1 == o_.config.gradient_accumulation;
      const std::string found = session_->executor().first_non_finite(
          *session_->training(batch.count, m > 0, last).bound, inputs_for(batch, step, m));
      if (first.empty()) first = found;
    }
    std::string op;
    for (const auto& found : session_->control().gather_text(first))
      if (op.empty()) op = found;
    throw AgreedError(Error(Exit::diverged, "E_DIVERGED", fmt::format("the loss is {}", loss))
                          .at("step", step + 1)
                          .at("op", op.empty() ? "loss" : op)
                          .hint("a lower optimizer.lr, warmup_steps or clip_grad_norm may help; checkpoints before it stand"));
  }

  void note_step(int64_t step, double loss_sum, double correct) {
    if (!root()) return;
    const int64_t n = schedule_->global_samples(step), spe = schedule_->steps_per_epoch();
    window_.add(loss_sum, correct, n);
    epoch_.add(loss_sum, correct, n);
    const double seconds = since(window_start_);
    if (step_ % o_.log_every == 0) {
      MetricsLine line = line_of("training", window_);
      line.lr = lr_at(o_.config.lr_schedule, o_.config.optimizer.lr, step, schedule_->total_steps());
      line.samples_per_second = static_cast<double>(window_.count) / seconds;
      line.data_wait_percent = 100 * data_wait_ / seconds;
      line.allreduce_exposed_percent = 100 * comm_.take_exposed_seconds() / seconds;
      metrics_->write(line);
      tensorboard_->write(line);
      window_ = {}, data_wait_ = 0, window_start_ = Clock::now();
    }
    progress_->update(schedule_->epoch(step) + 1, step % spe + 1, epoch_.loss(), accuracy_of(epoch_), rate());
  }

  double rate() const { return training_seconds_ > 0 ? static_cast<double>(samples_seen_) / training_seconds_ : 0; }

  void end_epoch() {
    std::optional<MetricsLine> validation;
    if (validation_) {
      const auto start = Clock::now();
      const Score s = evaluate(*session_, *validation_, validation_subset_);
      validation = line_of("validation", s);
      if (root()) metrics_->write(*validation), tensorboard_->write(*validation);
      const double value = o_.checkpoint.best_by == "validation_loss" ? -s.loss : s.accuracy.value_or(0);
      if (!o_.checkpoint.best_by.empty() && (!best_ || value > *best_)) best_ = value, best_is_new_ = true;
      window_start_ += Clock::now() - start;  // not training time
      if (best_is_new_) save();
    }
    if (root()) progress_->epoch_end(schedule_->epoch(step_ - 1) + 1, line_of("training", epoch_), validation ? &*validation : nullptr);
    epoch_ = {};
  }

  void show() {
    const auto start = Clock::now();
    o_.preview(*session_, step_, o_.run_folder, tensorboard_.get());
    window_start_ += Clock::now() - start;
  }

  // Rank 0 writes; an I/O error there is everybody's.
  void save() {
    if (saved_step_ == step_ && !best_is_new_) return;
    const auto start = Clock::now();
    on_root(comm_control(), [&]() -> std::string {
      session_->executor().download_model();
      const ModelState& m = session_->model();
      CheckpointContents c;
      c.model = averaged_tensors(m);
      c.state = optimizer_tensors(m);
      c.meta = {{"step", step_},
                {"epoch", static_cast<double>(step_) / static_cast<double>(schedule_->steps_per_epoch())},
                {"trajectory", trajectory(o_, schedule_samples())},
                {"kernels", session_->kernel_table()},
                {"job_hash", o_.job_hash},
                {"bit_exact", bit_exact_},
                {"batches_tracked", m.batches_tracked},
                {"seconds", elapsed()},
                {"training_seconds", training_seconds_},
                {"samples_seen", samples_seen_}};
      if (best_is_new_) best_folder_ = checkpoint_name(step_);
      if (best_) c.meta["best"] = *best_, c.meta["best_folder"] = best_folder_;
      write_checkpoint(o_.run_folder, c, static_cast<int>(o_.checkpoint.keep), best_folder_);
      if (o_.export_weights) o_.export_weights(*session_, o_.run_folder);
      return "";
    });
    best_is_new_ = false;
    saved_step_ = step_;
    window_start_ += Clock::now() - start;
  }

  std::optional<Score> finish() {
    std::optional<Score> score;
    if (test_) {
      score = evaluate(*session_, *test_, {});
      test_line_ = line_of("test", *score);
      if (root()) metrics_->write(test_line_), tensorboard_->write(test_line_), tensorboard_->flush();
    }
    on_root(comm_control(), [&]() -> std::string {
      session_->executor().download_model();
      if (o_.export_weights)
        o_.export_weights(*session_, o_.run_folder);
      else
        export_model(o_.run_folder + "/model.safetensors", averaged_tensors(session_->model()));
      return "";
    });
    return score;
  }

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
  MetricsLine line_of(const std::string& split, const Score& s) const {
    MetricsLine l = line_of(split, Sums{});
    l.loss = s.loss, l.accuracy = s.accuracy;
    return l;
  }
  MetricsLine line_of(const std::string& split, const Sums& s) const {
    MetricsLine l;
    l.step = step_;
    l.epoch = static_cast<double>(step_) / static_cast<double>(schedule_->steps_per_epoch());
    l.split = split;
    l.loss = s.loss(), l.accuracy = accuracy_of(s);
    l.seconds = elapsed();
    return l;
  }

  const TrainerOptions& o_;
  Communicator& comm_;
  const Clock::time_point created_ = Clock::now();

  std::shared_ptr<const ImageSet> training_, validation_, test_;
  std::vector<int64_t> training_subset_, validation_subset_;
  std::unique_ptr<Schedule> schedule_;
  std::unique_ptr<Session> session_;
  std::optional<LoadedCheckpoint> checkpoint_;
  json meta_;
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
};

}  // namespace

InputShape input_shape(const DatasetConfig& config, int64_t channels, int64_t height, int64_t width, int64_t classes) {
  InputShape s{channels, height, width, classes, config.mean, config.std, config.augment};
  auto widen = [&](std::vector<float>& v, float fallback) {
    if (v.empty()) v = {fallback};
    if (v.size() == 1) v.assign(static_cast<size_t>(channels), v[0]);
  };
  widen(s.mean, 0.0f);
  widen(s.std, 1.0f);
  return s;
}

TrainingResult train(const TrainerOptions& options, Communicator& comm) { return Trainer(options, comm).run(); }

}  // namespace lockstep
