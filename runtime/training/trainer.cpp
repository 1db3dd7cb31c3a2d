// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/trainer.h"

#include <spdlog/spdlog.h>

#include <array>
#include <cmath>

#include "kernels/peak/peak.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/checkpoint/weights_hash.h"
#include "runtime/comm/agree.h"
#include "runtime/comm/together.h"
#include "runtime/comm/whereabouts.h"
#include "runtime/device/memory.h"
#include "runtime/training/state_io.h"
#include "runtime/training/trainer_parts.h"

namespace lockstep {

TrainingResult Trainer::run() {
  load_data();
  open_checkpoint();
  TrainingResult r;
  r.steps = schedule_->total_steps();
  if (was_finished_) {
    r.was_finished = true, r.step = saved_->step;
    return r;
  }
  make_session();
  restore();
  encode_training_set();
  require_agreement(comm_, facts());
  open_outputs();
  o_.on_ready(step_);
  const bool finished = loop();
  r.interrupted = !finished;
  r.step = step_;
  r.skipped_images = skipped_images_;
  r.stopped_early = early_.reason();
  finish_trace();  // of a run that was stopped while it recorded
  if (finished) finish();
  if (finished && test_) r.test = tested_.score;
  r.profile = profile_;
  r.training_seconds = training_seconds_;
  r.samples_per_second = training_seconds_ > 0 ? static_cast<double>(samples_seen_) / training_seconds_ : 0;
  spdlog::info("memory of tensors: at most {} bytes", peak_allocated_bytes());
  if (root() && finished)
    progress_->finish(
        r.test ? &tested_.line : nullptr, r.training_seconds, r.samples_per_second, o_.run_folder,
        early_.stopped() ? fmt::format("at step {} of {}: {}", r.step, r.steps, r.stopped_early) : "");
  return r;
}

StepInputs Trainer::inputs_for(const Batch& batch, int64_t step, int64_t micro) const {
  StepInputs in;
  if (encoded_)
    in.set({kMoments, DType::f32, batch.images.data(), static_cast<int64_t>(batch.images.size_bytes())});
  else
    in.set(kImages, batch.images);
  if (encoded_ && encoded_->caption_floats() > 0)
    in.set({kText, DType::f32, batch.tokens.data(), static_cast<int64_t>(batch.tokens.size_bytes())});
  else
    o_.tokenizer ? in.set(kTokens, batch.tokens) : in.set(kLabels, batch.labels);
  in.state.seed = o_.config.seed;
  in.state.step = step;
  in.state.first_sample = schedule_->part(step, micro, comm_.rank()).begin;
  in.state.global_samples = schedule_->global_samples(step);
  if (o_.config.ema.decay) in.state.ema_gain = static_cast<float>(1 - ema_decay(o_.config.ema, step + 1));
  in.state.lr = static_cast<float>(
      lr_at(o_.config.lr_schedule, o_.config.optimizer.lr, step, schedule_->total_steps()));
  return in;
}

bool Trainer::loop() {
  const int64_t total = schedule_->total_steps(), spe = schedule_->steps_per_epoch();
  Loader loader = make_loader();
  const int64_t ahead = loader_depth() / schedule_->micro_batches() - 1;  // whole steps
  int64_t requested = step_, next = step_;
  std::array<Started, 2> under_way;
  size_t count = 0;
  bool stop = false;
  constexpr int64_t kTraced = 10;
  if (!o_.trace_file.empty() || o_.profile) {
    // The first steps touch memory for the first time.
    const int64_t left = total - step_, skipped = std::min(kTraced, left / 2);
    traced_from_ = step_ + skipped;
    trace_.emplace(std::min(kTraced, left - skipped));
  }
  window_start_ = step_start_ = Clock::now();
  while (step_ < total && !early_.stopped()) {
    const bool pauses = count > 0 && pauses_after(under_way[count - 1].step);
    if (next < total && !stop && !pauses) {
      for (; requested < std::min(total, next + 1 + ahead); ++requested) request(loader, requested);
      under_way[count++] = start_step(loader, next++);
      if (session_->executor().runs_ahead() && count < under_way.size() && !pauses_after(next - 1)) continue;
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
    if (samples_seen_ == 0)
      spdlog::info("first step done {:.3f} s after the start", o_.start_seconds + since(created_));
    samples_seen_ += schedule_->global_samples(done.step);
    ++step_;
    if (trace_ && trace_->recording()) {
      trace_->end_step();
      if (!trace_->recording()) finish_trace();
    }
    o_.on_step(step_, total);
    note_step(done.step, metrics[0], metrics[1]);

    if (count > 0) continue;
    look();
    if (step_ % spe == 0) end_epoch();
    if (stop || early_.stopped() || best_is_new_ || saves_after(done.step)) save();
    if (o_.preview && (early_.stopped() || shows_after(done.step))) show();
    if (early_.stopped()) break;
    if (stop && step_ < total) return false;
    step_start_ = Clock::now();
  }
  if (early_.stopped()) spdlog::info("stopped early at step {} of {}: {}", step_, total, early_.reason());
  if (step_ % spe != 0) end_epoch();
  if (best_is_new_) save();
  return true;
}

void Trainer::look() {
  const int64_t spe = schedule_->steps_per_epoch();
  if (validation_ && step_ % spe == 0) validate();
  if (early_.looks_after(step_, spe)) early_.look(early_.on_test() ? test() : validate());
}

bool Trainer::saves_after(int64_t step) const {
  const auto& c = o_.checkpoint;
  const int64_t done = step + 1, spe = schedule_->steps_per_epoch();
  return done == schedule_->total_steps() || (c.every_steps && done % *c.every_steps == 0) ||
         (c.every_epochs && done % spe == 0 && (done / spe) % *c.every_epochs == 0);
}

bool Trainer::pauses_after(int64_t step) const {
  const int64_t spe = schedule_->steps_per_epoch();
  return saves_after(step) || shows_after(step) || (step + 1) % spe == 0 || early_.looks_after(step + 1, spe);
}

Trainer::Started Trainer::start_step(Loader& loader, int64_t step) {
  static const Trace::Work data{"wait for data", "wait", "", 0, 0};
  const int64_t a = schedule_->micro_batches();
  Executor::Bound* plan = nullptr;
  start_trace(step);
  for (int64_t m = 0; m < a; ++m) {
    const int64_t begin = Trace::now_ns();
    const Batch& batch = [&]() -> const Batch& {
      const OwnWork own("reading data");
      return loader.next();
    }();
    if (trace_ && trace_->recording()) trace_->add(Trace::Lane::compute, data, begin, Trace::now_ns());
    StepInputs inputs = inputs_for(batch, step, m);
    inputs.stop = m + 1 == a && o_.stop_requested();
    plan = session_->training(batch.count, m).bound;
    session_->executor().start(*plan, inputs);
  }
  session_->executor().send_results(*plan);
  session_->model().batches_tracked += schedule_->micro_batches_with_samples(step);
  return {step, plan};
}

void Trainer::start_trace(int64_t step) {
  if (step != traced_from_) return;
  session_->executor().set_trace(&*trace_);
  comm_.set_trace(&*trace_);
  comm_.barrier();  // one time 0 for all ranks
  trace_->start();
}

void Trainer::finish_trace() {
  if (!trace_ || trace_->steps() == 0) return;
  session_->executor().set_trace(nullptr);
  comm_.set_trace(nullptr);
  if (!o_.trace_file.empty()) {
    const auto events = comm_control().gather_text(trace_->events(comm_.rank()));
    on_root(comm_control(), [&]() -> std::string {
      write_file_atomically(o_.trace_file, Trace::trace_file(events));
      return "";
    });
  }
  if (o_.profile && root()) profile_ = profile_table(*trace_, measure_peak_gflops(o_.kernels.threads));
  trace_.reset();
}

void Trainer::report_divergence(int64_t step, double loss) {
  Loader loader = make_loader();
  std::string first;
  for (int64_t m = 0; m < schedule_->micro_batches(); ++m) {
    request_micro(loader, step, m);
    const Batch& batch = loader.next();
    const std::string found = session_->executor().first_non_finite(*session_->training(batch.count, m).bound,
                                                                    inputs_for(batch, step, m));
    if (first.empty()) first = found;
  }
  std::string op;
  for (const auto& found : session_->control().gather_text(first))
    if (op.empty()) op = found;
  throw AgreedError(
      Error(Exit::diverged, "E_DIVERGED", fmt::format("the loss is {}", loss))
          .at("step", step + 1)
          .at("op", op.empty() ? "loss" : op)
          .hint(
              "a lower optimizer.lr, warmup_steps or clip_grad_norm may help; checkpoints before it stand"));
}

void Trainer::note_step(int64_t step, double loss_sum, double correct) {
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
    write(line);
    window_ = {}, data_wait_ = 0, window_start_ = Clock::now();
  }
  progress_->update(schedule_->epoch(step) + 1, step % spe + 1, epoch_.loss(), accuracy_of(epoch_), rate());
}

void Trainer::write(const MetricsLine& line) {
  if (!root()) return;
  const OwnWork own("writing metrics");
  metrics_->write(line);
  tensorboard_->write(line);
}

const Score& Trainer::validate() {
  if (validated_.step == step_) return validated_.score;
  const auto start = Clock::now();
  const Score s = score(*validation_, validation_subset_);
  validated_ = {step_, s, line_of("validation", s)};
  write(validated_.line);
  const double value = o_.checkpoint.best_by == "validation_loss" ? -s.loss : s.accuracy.value_or(0);
  if (!o_.checkpoint.best_by.empty() && (!best_ || value > *best_)) best_ = value, best_is_new_ = true;
  window_start_ += Clock::now() - start;  // not training time
  return validated_.score;
}

const Score& Trainer::test() {
  if (tested_.step == step_) return tested_.score;
  const auto start = Clock::now();
  const Score s = score(*test_, {});
  tested_ = {step_, s, line_of("test", s)};
  write(tested_.line);
  if (root()) tensorboard_->flush();
  window_start_ += Clock::now() - start;
  return tested_.score;
}

void Trainer::end_epoch() {
  if (validation_) validate();
  if (root())
    progress_->epoch_end(schedule_->epoch(step_ - 1) + 1, line_of("training", epoch_),
                         validation_ ? &validated_.line : nullptr);
  epoch_ = {};
}

void Trainer::show() {
  const auto start = Clock::now();
  try {
    o_.preview(*session_, input_, step_, o_.run_folder, tensorboard_.get());
  } catch (Error& e) {
    e.add_place("step", std::to_string(step_));
    throw;
  }
  window_start_ += Clock::now() - start;
}

void Trainer::expect_finite(std::span<const StoredTensor> tensors) const {
  const StoredTensor* t = first_non_finite(tensors);
  if (!t) return;
  throw Error(Exit::diverged, "E_NOT_FINITE", "an update left numbers in a tensor that are not finite")
      .at("step", step_)
      .at("tensor", t->name)
      .hint("a lower optimizer.lr, warmup_steps or clip_grad_norm may help; checkpoints before it stand");
}

Score Trainer::score(const SampleSource& images, const std::vector<int64_t>& subset) {
  try {
    return evaluate(*session_, images, subset, o_.tokenizer.get());
  } catch (Error& e) {
    if (e.exit() != Exit::diverged) throw;
    on_root(comm_control(), [&]() -> std::string {
      session_->executor().download_model();
      expect_finite(averaged_tensors(session_->model()));
      expect_finite(optimizer_tensors(session_->model()));
      return "";
    });
    e.add_place("step", std::to_string(step_));
    throw;
  }
}

void Trainer::save() {
  if (saved_step_ == step_ && !best_is_new_) return;
  const auto start = Clock::now();
  on_root(comm_control(), [&]() -> std::string {
    const OwnWork own("writing a checkpoint");
    session_->executor().download_model();
    const ModelState& m = session_->model();
    CheckpointContents c;
    c.model = averaged_tensors(m);
    c.state = optimizer_tensors(m);
    expect_finite(c.model);
    expect_finite(c.state);
    const LearningRates rates = learning_rates(step_);
    c.meta = {{"step", step_},
              {"epoch", static_cast<double>(step_) / static_cast<double>(schedule_->steps_per_epoch())},
              {"lr", {{"last", rates.last}, {"next", rates.next}, {"steps", rates.steps}}},
              {"kernels", session_->kernel_table()},
              {"job_hash", o_.job_hash},
              {"bit_exact", bit_exact_},
              {"batches_tracked", m.batches_tracked},
              {"seconds", elapsed()},
              {"training_seconds", training_seconds_},
              {"samples_seen", samples_seen_}};
    write_record(c.meta, record_);
    if (!changes_.empty()) c.meta["changes"] = changes_;
    if (!o_.stop.metric.empty()) c.meta["stop"] = early_.state();
    if (best_is_new_) best_folder_ = checkpoint_name(step_);
    if (best_) c.meta["best"] = *best_, c.meta["best_folder"] = best_folder_;
    c.description = description_;
    c.write_beside = [this](const std::string& folder) { write_tokenizer(folder); };
    write_checkpoint(o_.run_folder, c, static_cast<int>(o_.checkpoint.keep), best_folder_);
    if (o_.export_configuration) export_model();
    return "";
  });
  best_is_new_ = false;
  saved_step_ = step_;
  window_start_ += Clock::now() - start;
}

void Trainer::write_tokenizer(const std::string& folder) const {
  if (o_.tokenizer) o_.tokenizer->save(folder + "/tokenizer");
}

void Trainer::export_model() {
  if (exported_step_ == step_) return;
  if (o_.export_configuration) o_.export_configuration(input_, o_.run_folder);
  write_tokenizer(o_.run_folder);
  const auto tensors = averaged_tensors(session_->model());
  std::vector<ExportedWeights> files;
  for (const auto& [file, network] : o_.exported) files.push_back({file, of_network(tensors, network)});
  exported_hashes_ = export_described(o_.run_folder, files, description_, exported_hashes_);
  exported_step_ = step_;
}

void Trainer::finish() {
  if (test_) test();
  on_root(comm_control(), [&]() -> std::string {
    const OwnWork own("writing the model");
    session_->executor().download_model();
    export_model();
    return "";
  });
}

MetricsLine Trainer::line_of(const std::string& split, const Score& s) const {
  MetricsLine l = line_of(split, Sums{});
  l.loss = s.loss, l.accuracy = s.accuracy, l.confusion = s.confusion;
  return l;
}

MetricsLine Trainer::line_of(const std::string& split, const Sums& s) const {
  MetricsLine l;
  l.step = step_;
  l.epoch = static_cast<double>(step_) / static_cast<double>(schedule_->steps_per_epoch());
  l.split = split;
  l.loss = s.loss(), l.accuracy = accuracy_of(s);
  l.seconds = elapsed();
  return l;
}

TrainingResult train(const TrainerOptions& options, Communicator& comm) {
  return Trainer(options, comm).run();
}

}  // namespace lockstep
