// SPDX-License-Identifier: Apache-2.0
// Going on from a checkpoint: which one, whether it is of this run, and whether anything is left to do.
#include <spdlog/spdlog.h>

#include "runtime/checkpoint/weights_hash.h"
#include "runtime/comm/together.h"
#include "runtime/files/json_value.h"
#include "runtime/training/trainer_parts.h"

namespace lockstep {
namespace {

using nlohmann::json;

constexpr const char* kMetaFile = "meta.json";

// What checkpoints before 0.3.0 noted of the run: the only settings that can be compared with theirs.
json earlier_trajectory(const TrainerOptions& o, const std::string& objective, int64_t samples) {
  const auto& c = o.config;
  const auto& opt = c.optimizer;
  json j = {{"training_samples", samples},
            {"global_batch_size", c.global_batch_size},
            {"seed", c.seed},
            {"shuffle", c.shuffle},
            {"drop_last", c.drop_last},
            {"flip", o.training_data.augment.flip},
            {"crop_padding", o.training_data.augment.crop_padding},
            {"optimizer", opt.name},
            {"objective", objective},
            {"precision", c.precision},
            {"ema", c.ema.decay.has_value()}};
  if (const Extent window = o.training_data.augment.random_crop.both(); window.given())
    j["random_crop"] = {window.height, window.width};
  // Checkpoints from before there was a choice say nothing.
  if (o.gradient_precision != "fp32") j["gradient_precision"] = o.gradient_precision;
  if (c.shards)
    j["shards"] = *c.shards, j["threads_per_rank"] = o.kernels.threads;
  else
    j["gradient_accumulation"] = c.gradient_accumulation;
  return j;
}

void compare_with_earlier(const json& noted, const json& expected, const std::string& checkpoint) {
  // What 0.1.0 does not note it did not have.
  json stored = {{"flip", false},
                 {"crop_padding", 0},
                 {"objective", "classification"},
                 {"precision", "fp32"},
                 {"ema", false}};
  stored.update(noted);
  const auto said = [](const json& j, const std::string& key) {
    return j.contains(key) ? json_text(j[key]) : "unset";
  };
  json both = expected;
  both.update(stored);
  for (const auto& [key, value] : both.items())
    if (said(stored, key) != said(expected, key))
      throw Error(
          Exit::config, "E_RESUME_JOB",
          fmt::format("the run began with {} {}, now {}", key, said(stored, key), said(expected, key)))
          .at("checkpoint", checkpoint)
          .hint("a resumed run goes on as it began: start a new one for other settings");
  spdlog::warn("{} is of an earlier version, which noted no more than {} settings: only these were compared",
               checkpoint, noted.size());
}

}  // namespace

std::string Trainer::meta_file() const { return checkpoint_->folder + "/" + kMetaFile; }

void Trainer::open_checkpoint() {
  const std::string text = on_root(comm_, [&]() -> std::string {
    if (!o_.resume) return "";
    expect_keys(o_.allow_change, o_.job);
    checkpoint_ = load_newest_checkpoint(o_.run_folder, [](const std::string& w) { spdlog::warn("{}", w); });
    if (!checkpoint_) {  // stopped before its first one
      spdlog::warn("no checkpoint in {}: the run starts from the beginning", o_.run_folder);
      return "";
    }
    saved_state(checkpoint_->meta, meta_file());  // is whole, before anything of it is compared or changed
    compare_with_checkpoint();
    const json& meta = checkpoint_->meta;
    const SavedState saved = saved_state(meta, meta_file());
    const int64_t done = saved.step;
    const std::string key = o_.config.steps ? "hyperparameters.steps" : "hyperparameters.epochs";
    if (done > schedule_->total_steps())
      throw Error(
          Exit::config, "E_RESUME_JOB",
          fmt::format("the run has done {} steps, the job asks for {}", done, schedule_->total_steps()))
          .at("job", o_.job.contains(key) ? o_.job.at(key).where : "")
          .at("key", key)
          .at("checkpoint", checkpoint_->folder)
          .hint("epochs or steps may grow, and not shrink below what is done");
    const bool at_end = done == schedule_->total_steps() || (saved.stop && !saved.stop->reason.empty());
    const bool finished = o_.was_completed && at_end;
    if (!finished && meta.contains("lr")) compare_learning_rates(done);
    return json_text(json{{"meta", meta}, {"finished", finished}});
  });
  if (text.empty()) return;
  json told = json::parse(text);
  saved_ = saved_state(told["meta"], kMetaFile);
  was_finished_ = told["finished"];
}

void Trainer::compare_with_checkpoint() {
  const json& meta = checkpoint_->meta;
  if (!meta.contains("job")) {
    compare_with_earlier(json_get<json::object_t>(meta, "trajectory", meta_file()),
                         earlier_trajectory(o_, objective_->name(), schedule_samples()), checkpoint_->folder);
    return;
  }
  const auto found =
      differences(meta, meta_file(), record_, [&] { return hash_of_weights(*open_model(o_.init_from)); });
  refuse_differences(found, o_.allow_change, o_.job, checkpoint_->folder);
  note_changes(found);
}

void Trainer::note_changes(const std::vector<Difference>& changes) {
  json& meta = checkpoint_->meta;
  const auto step = json_get<int64_t>(meta, "step", meta_file());
  for (const Difference& d : changes) {
    spdlog::warn("{} changes at step {}: {}, now {}", d.key, step, d.from, d.to);
    meta["changes"].push_back({{"step", step}, {"key", d.key}, {"from", d.from}, {"to", d.to}});
    // What was best by one measure says nothing of another.
    if (d.key.starts_with("checkpoint.best_by")) meta.erase("best"), meta.erase("best_folder");
    if (d.key.starts_with("stop.")) meta.erase("stop");
  }
}

Trainer::LearningRates Trainer::learning_rates(int64_t done) const {
  const int64_t total = schedule_->total_steps();
  const auto rate = [&](int64_t step) {
    return lr_at(o_.config.lr_schedule, o_.config.optimizer.lr, step, total);
  };
  // one_cycle has no step behind its last.
  const int64_t next = o_.config.lr_schedule.name == "one_cycle" ? std::min(done, total - 1) : done;
  return {rate(done - 1), rate(next), total};
}

void Trainer::compare_learning_rates(int64_t done) {
  json& meta = checkpoint_->meta;
  const auto stored = json_get<json::object_t>(meta, "lr", meta_file());
  const auto get = [&]<class T>(const char* key, T) { return json_get<T>(stored, key, meta_file(), "lr."); };
  const LearningRates before{get("last", double{}), get("next", double{}), get("steps", int64_t{})},
      now = learning_rates(done);
  if (before.steps != now.steps)
    meta["changes"].push_back({{"step", done},
                               {"key", "total steps"},
                               {"from", std::to_string(before.steps)},
                               {"to", std::to_string(now.steps)}});
  if (before.next == now.next) return;
  spdlog::warn(
      "the learning rate goes from {:.6g} at step {} to {:.6g} at step {}: schedule {} runs over {} steps "
      "now, {} before",
      before.last, done, now.next, done + 1, o_.config.lr_schedule.name, now.steps, before.steps);
}

}  // namespace lockstep
