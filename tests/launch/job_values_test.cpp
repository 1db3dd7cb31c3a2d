// SPDX-License-Identifier: Apache-2.0
// Which keys of a job a resumed run may have other values of: what shapes the trajectory is compared, and so is a new key.
#include <algorithm>
#include <set>

#include "launch/job/keys.h"
#include "runtime/training/resume.h"
#include "tests/launch/job_support.h"

namespace lockstep::testing {
namespace {

nlohmann::json checkpoint_of(const Job& job) {
  nlohmann::json meta;
  write_record(meta, {job_values(job), {}, {}});
  return nlohmann::json::parse(meta.dump());
}

// "key: from -> to" of each.
std::vector<std::string> differing(const Job& before, const Job& now) {
  std::vector<std::string> texts;
  for (const Difference& d :
       differences(checkpoint_of(before), "meta.json", {job_values(now), {}, {}}, [] { return "other"; }))
    texts.push_back(d.key + ": " + d.from + " -> " + d.to);
  return texts;
}

using Texts = std::vector<std::string>;

TEST(JobValues, HoldEveryKeyOfTheTables) {
  JobFolder folder;
  const JobValues values = job_values(folder.read(kSmallJob));
  const auto has = [&](const std::string& key) {
    return std::any_of(values.begin(), values.end(),
                       [&](const auto& row) { return row.first == key || row.first.starts_with(key + "."); });
  };
  for (const job::Key& key : job::job_keys())
    EXPECT_TRUE(has(key.path) || key.path == "model.layers") << key.path;
  for (const job::Key& key : job::training_keys())
    EXPECT_TRUE(has("inputs.training." + key.path)) << key.path;
  for (const job::Key& key : job::dataset_keys())
    EXPECT_TRUE(has("inputs.validation." + key.path)) << key.path;
  for (const job::Key& key : job::unet_keys()) EXPECT_TRUE(has("model.config." + key.path)) << key.path;
  for (const job::Key& key : job::unet_condition_keys())
    EXPECT_TRUE(has("model.unet." + key.path)) << key.path;
  for (const job::Key& key : job::clip_text_keys())
    EXPECT_TRUE(has("model.text_encoder." + key.path)) << key.path;
  EXPECT_TRUE(job_values(folder.read(with_layers("[relu]"))).contains("model.layers[0]"));
  EXPECT_EQ(values.at("hyperparameters.optimizer.lr").where, folder.file() + ":10:26");
}

// A key that is to be free is one of these by decision.
TEST(JobValues, FewMayChange) {
  JobFolder folder;
  std::set<std::string> free;
  for (const auto& [key, value] : job_values(folder.read(kSmallJob)))
    if (value.may_change && !key.starts_with("sampling.") && !key.starts_with("inputs.")) free.insert(key);
  EXPECT_EQ(free, (std::set<std::string>{"job_name",
                                         "instance_count",
                                         "hosts",
                                         "hostfile",
                                         "network_interface",
                                         "backend",
                                         "device",
                                         "threads_per_rank",
                                         "deadline_seconds",
                                         "disk_deadline_seconds",
                                         "start_deadline_seconds",
                                         "model.init_from",
                                         "model.tokenizer",
                                         "hyperparameters.epochs",
                                         "hyperparameters.steps",
                                         "hyperparameters.recompute",
                                         "hyperparameters.memory_budget_mb",
                                         "checkpoint.every_steps",
                                         "checkpoint.every_epochs",
                                         "checkpoint.keep",
                                         "log_every",
                                         "output.dir",
                                         "sample_every"}));
  const auto shards = job_values(folder.read(kSmallJob, {"hyperparameters.shards=4", "threads_per_rank=1"}));
  EXPECT_FALSE(shards.at("threads_per_rank").may_change);
}

TEST(JobValues, WhatShapesTheTrajectoryDiffers) {
  JobFolder folder;
  const std::string text =
      with_layers("[{conv2d: {out_channels: 4, kernel: 3}}, relu, flatten, {linear: {out_features: 10}}]") +
      "  lr_schedule: {name: cosine}\nvalidation_fraction: 0.1\n";
  const Job before = folder.read(text);
  EXPECT_EQ(differing(before, before), Texts{});
  const struct {
    std::string set;
    Texts differences;
  } cases[] = {
      {"inputs.training.normalize={mean: 0.5, std: 0.25}",
       {"inputs.test.normalize.mean: unset -> [0.5]", "inputs.test.normalize.std: unset -> [0.25]",
        "inputs.training.normalize.mean: unset -> [0.5]", "inputs.training.normalize.std: unset -> [0.25]"}},
      {"inputs.training.augment={flip: true}", {"inputs.training.augment.flip: false -> true"}},
      {"inputs.training.limit=7", {"inputs.training.limit: 0 -> 7"}},
      {"model.layers=[{conv2d: {out_channels: 4, kernel: 3}}, tanh, flatten, {linear: {out_features: 10}}]",
       {"model.layers[1]: relu -> tanh"}},
      {"model.layers=[{conv2d: {out_channels: 4, kernel: 3}}, relu, flatten, {linear: {out_features: 10}}, "
       "log_softmax]",
       {"model.layers[4]: unset -> log_softmax"}},
      {"hyperparameters.optimizer={name: sgd, lr: 0.1, weight_decay: 0.01}",
       {"hyperparameters.optimizer.weight_decay: 0 -> 0.01"}},
      {"hyperparameters.optimizer={name: adam, lr: 0.1}", {"hyperparameters.optimizer.name: sgd -> adam"}},
      {"hyperparameters.optimizer.lr=0.2", {"hyperparameters.optimizer.lr: 0.1 -> 0.2"}},
      {"hyperparameters.lr_schedule={name: linear}", {"hyperparameters.lr_schedule.name: cosine -> linear"}},
      {"hyperparameters.clip_grad_norm=1", {"hyperparameters.clip_grad_norm: 0 -> 1"}},
      {"hyperparameters.ema={decay: 0.9}", {"hyperparameters.ema.decay: unset -> 0.9"}},
      {"hyperparameters.label_smoothing=0.1", {"hyperparameters.label_smoothing: 0 -> 0.1"}},
      {"hyperparameters.param_groups=[{match: x, frozen: true}]",
       {"hyperparameters.param_groups: unset -> [{match: x, lr_scale: 1, frozen: true}]"}},
      {"validation_fraction=0.2", {"validation_fraction: 0.1 -> 0.2"}},
      {"checkpoint.best_by=validation_loss", {"checkpoint.best_by: unset -> validation_loss"}},
      {"stop={metric: validation_loss, patience: 2}",
       {"stop.metric: unset -> validation_loss", "stop.patience: unset -> 2"}},
      {"hyperparameters.steps=50", {}},
      {"instance_count=3", {}},
      {"checkpoint.every_steps=5", {}},
      {"inputs.training.path=elsewhere", {}},  // its content is compared
  };
  for (const auto& c : cases)
    EXPECT_EQ(differing(before, folder.read(text, {c.set})), c.differences) << c.set;
}

TEST(JobValues, DiffusionsToo) {
  const std::string file = LOCKSTEP_SOURCE_DIR "/tests/golden/diffusion/tiny.yaml";
  const Job before = read_job(file, {});
  const struct {
    std::string set;
    Texts differences;
  } cases[] = {
      {"objective.prediction_type=epsilon", {"objective.prediction_type: v_prediction -> epsilon"}},
      {"objective.beta_schedule=linear", {"objective.beta_schedule: squaredcos_cap_v2 -> linear"}},
      {"objective.num_train_timesteps=100", {"objective.num_train_timesteps: 1000 -> 100"}},
      {"objective.snr_gamma=0", {"objective.snr_gamma: 5 -> 0"}},
      {"model.config.dropout=0", {"model.config.dropout: 0.1 -> 0"}},
      {"sampling.steps=9", {}},
  };
  for (const auto& c : cases) EXPECT_EQ(differing(before, read_job(file, {c.set})), c.differences) << c.set;
}

// A checkpoint of a program that did not know a key yet: the run had the key's default.
TEST(JobValues, AKeyThatTheCheckpointDoesNotKnowHadItsDefault) {
  JobFolder folder;
  const Job job = folder.read(kSmallJob);
  auto meta = checkpoint_of(job);
  meta["job"].erase("hyperparameters.clip_grad_norm");
  EXPECT_TRUE(differences(meta, "meta.json", {job_values(job), {}, {}}, [] { return ""; }).empty());
  const Job clips = folder.read(kSmallJob, {"hyperparameters.clip_grad_norm=2"});
  const auto found = differences(meta, "meta.json", {job_values(clips), {}, {}}, [] { return ""; });
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].from, "0");
}

TEST(JobValues, WeightsToStartFromAreComparedByContent) {
  JobFolder folder;
  const Job before = folder.read(kSmallJob, {"model.init_from=a"}),
            moved = folder.read(kSmallJob, {"model.init_from=b"});
  nlohmann::json meta;
  write_record(meta, {job_values(before), {}, "hash"});
  const auto count = [&](const Job& job, const std::string& hash) {
    return differences(meta, "meta.json", {job_values(job), {}, {}}, [&] { return hash; }).size();
  };
  EXPECT_EQ(count(before, "other"), 0u) << "not read again where the path is the same";
  EXPECT_EQ(count(moved, "hash"), 0u);
  EXPECT_EQ(count(moved, "other"), 1u);
  EXPECT_EQ(count(folder.read(kSmallJob), "hash"), 1u);
}

}  // namespace
}  // namespace lockstep::testing
