// SPDX-License-Identifier: Apache-2.0
// A resumed run is the run that began: its job and its data are compared, from the real program.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/dataset.h"
#include "tests/launch/job_support.h"
#include "tests/launch/small_run.h"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class ResumeTest : public SmallRun {
 protected:
  static constexpr const char* kFit = "fit job.yaml --output run";
  Outcome resume(const std::string& more = "") const {
    return lockstep(std::string(kFit) + " --resume " + more);
  }
  json meta(const std::string& checkpoint) const {
    return json::parse(read_file(folder_.file("run/checkpoints/" + checkpoint + "/meta.json")));
  }
  json status() const { return json::parse(read_file(folder_.file("run/status.json"))); }
  // As if it had been stopped after two of its four steps.
  void begin(const std::string& more = "") const {
    expect(lockstep(std::string(kFit) + " " + more), Exit::ok);
    fs::remove_all(folder_.file("run/checkpoints/step-00000004"));
  }
};

TEST_F(ResumeTest, OtherSettingsAreRefusedWithBothValuesAndTouchNothing) {
  begin();
  const std::string job = read_file(folder_.file("run/job.yaml")),
                    before = read_file(folder_.file("run/status.json"));
  const std::string change =
      " --set hyperparameters.optimizer.lr=0.02 --set inputs.training.augment={flip:\\ true}";
  expect(resume(change), Exit::config, "E_RESUME_JOB", "hyperparameters.optimizer.lr 0.01, now 0.02",
         "inputs.training.augment.flip false, now true", "--allow-change",
         "job=--set hyperparameters.optimizer.lr", "run/checkpoints/step-00000002");
  // One of them is not enough.
  expect(resume(change + " --allow-change hyperparameters.optimizer.lr"), Exit::config,
         "inputs.training.augment.flip false, now true");
  EXPECT_EQ(read_file(folder_.file("run/job.yaml")), job);
  EXPECT_EQ(json::parse(before).at("state"), status().at("state"));

  expect(resume(change + " --allow-change hyperparameters.optimizer,inputs.training.augment.flip"), Exit::ok,
         "warning: hyperparameters.optimizer.lr changes at step 2: 0.01, now 0.02");
  const json changes = meta("step-00000004").at("changes");
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0],
            (json{{"step", 2}, {"key", "hyperparameters.optimizer.lr"}, {"from", "0.01"}, {"to", "0.02"}}));
  EXPECT_NE(read_file(folder_.file("run/log.txt")).find("augment.flip changes at step 2"), std::string::npos);
  EXPECT_NE(read_file(folder_.file("run/job.yaml")).find("lr: 0.02"), std::string::npos);
  // The run is the changed one now; what was changed stays noted.
  expect(resume(change + " --set hyperparameters.steps=6"), Exit::ok);
  EXPECT_EQ(meta("step-00000006").at("changes").size(), 3u);
}

TEST_F(ResumeTest, WhatShapesNoStepMayChange) {
  begin();
  expect(resume("--set log_every=3 --set checkpoint={every_steps:\\ 1} --set instance_count=2 --set "
                "deadline_seconds=60"),
         Exit::ok);
  EXPECT_FALSE(meta("step-00000004").contains("changes"));
}

TEST_F(ResumeTest, DataAreComparedByContent) {
  begin();
  fs::create_directories(folder_.file("same"));
  fs::create_directories(folder_.file("other"));
  write_set("same/");
  write_set("other/", 38);
  expect(resume("--set inputs.training.path=other"), Exit::config, "E_RESUME_JOB", "inputs.training content ",
         folder_.file("other"), "inputs.test content", "--allow-change inputs.test,inputs.training");
  expect(resume("--set inputs.training.path=same"), Exit::ok);
  // The same place, and other pictures in it.
  write_set("", 39);
  expect(resume("--set hyperparameters.steps=6"), Exit::config, "inputs.training content ");
  expect(resume("--set hyperparameters.steps=6 --allow-change inputs.training,inputs.test"), Exit::ok,
         "warning: inputs.test");
}

TEST_F(ResumeTest, ClassesAreComparedByNameAndOrder) {
  const auto put = [&](const std::string& name, uint8_t grey) {
    const std::string path = folder_.file("pictures/" + name);
    fs::create_directories(fs::path(path).parent_path());
    write_png(path, {1, 8, 8, std::vector<uint8_t>(64, grey)});
  };
  for (int i = 0; i < 6; ++i)
    put(fmt::format("cat/{}.png", i), static_cast<uint8_t>(i)),
        put(fmt::format("dog/{}.png", i), static_cast<uint8_t>(200 + i));
  write_file(folder_.file("job.yaml"),
             "job_name: test\nmodel: {layers: [flatten, {linear: {out_features: 2}}]}\n"
             "inputs: {training: {dataset: image_folder, path: pictures}}\ncheckpoint: {every_steps: 2}\n"
             "hyperparameters: {steps: 4, global_batch_size: 4, optimizer: {name: sgd, lr: 0.01}}\n");
  begin();
  fs::rename(folder_.file("pictures/cat"), folder_.file("x"));
  fs::rename(folder_.file("pictures/dog"), folder_.file("pictures/cat"));
  fs::rename(folder_.file("x"), folder_.file("pictures/dog"));
  expect(resume(), Exit::config, "inputs.training content ");  // swapped
  fs::rename(folder_.file("pictures/dog"), folder_.file("x"));
  fs::rename(folder_.file("pictures/cat"), folder_.file("pictures/dog"));
  fs::rename(folder_.file("x"), folder_.file("pictures/ant"));
  expect(resume(), Exit::config, "inputs.training classes [cat, dog], now classes [ant, dog]");
}

TEST_F(ResumeTest, AStretchedScheduleIsSaidWithBothRates) {
  const std::string cosine = "--set hyperparameters.lr_schedule=cosine ";
  expect(lockstep("fit job.yaml --output run " + cosine), Exit::ok);
  const Outcome longer = resume(cosine + "--set hyperparameters.steps=8");
  // 0.01 (1 + cos(pi 3/4)) / 2, and 0.01 (1 + cos(pi 4/8)) / 2.
  expect(longer, Exit::ok, "the learning rate goes from 0.00146447 at step 4 to 0.005 at step 5",
         "8 steps now, 4 before");
  EXPECT_EQ(meta("step-00000008").at("changes")[0].at("key"), "total steps");
  // Without such a schedule there is nothing to say.
  expect(lockstep("fit job.yaml --output flat"), Exit::ok);
  const Outcome flat = lockstep("fit job.yaml --output flat --resume --set hyperparameters.steps=8");
  expect(flat, Exit::ok);
  EXPECT_EQ(flat.text.find("learning rate"), std::string::npos) << flat.text;
  expect(lockstep("fit job.yaml --output flat --resume --set hyperparameters.steps=3"), Exit::config,
         "E_RESUME_JOB", "has done 8 steps, the job asks for 3", "key=hyperparameters.steps");
}

TEST_F(ResumeTest, AutoStartsOrGoesOnOrHasNothingToDo) {
  expect(lockstep(std::string(kFit) + " --resume=auto"), Exit::ok);
  fs::remove_all(folder_.file("run/checkpoints/step-00000004"));
  write_file(folder_.file("run/status.json"),
             replaced(read_file(folder_.file("run/status.json")), "completed", "interrupted"));
  expect(lockstep(std::string(kFit) + " --resume=auto"), Exit::ok);
  EXPECT_NE(read_file(folder_.file("run/log.txt")).find("resumes rank 0"), std::string::npos);

  const std::string metrics = read_file(folder_.file("run/metrics.jsonl"));
  for (const std::string how : {"--resume=auto", "--resume", "--resume=auto --set instance_count=2"}) {
    expect(lockstep(std::string(kFit) + " " + how), Exit::ok, "The run in", "is finished: step 4 of 4");
    EXPECT_EQ(read_file(folder_.file("run/metrics.jsonl")), metrics) << "nothing is written twice";
    EXPECT_EQ(status().at("state"), "completed");
    EXPECT_EQ(status().at("step"), 4);
  }
  expect(lockstep(std::string(kFit) + " --resume=auto --set hyperparameters.seed=4"), Exit::config,
         "E_RESUME_JOB");
  EXPECT_EQ(status().at("state"), "completed") << "a run stays as it was";

  // A run that has no checkpoint yet, and a folder with nothing in it.
  fs::remove_all(folder_.file("run/checkpoints"));
  expect(lockstep(std::string(kFit) + " --resume=auto"), Exit::ok, "starts from the beginning");
  fs::create_directories(folder_.file("empty"));
  expect(lockstep("fit job.yaml --output empty --resume=auto"), Exit::ok);
  // Numbered ones.
  expect(lockstep("fit job.yaml --resume=auto"), Exit::ok);
  expect(lockstep("fit --resume=auto job.yaml"), Exit::ok, "runs/test-001 is finished");
  expect(lockstep("fit --resume job.yaml"), Exit::ok, "runs/test-001 is finished");
  EXPECT_FALSE(fs::exists(folder_.file("runs/test-002")));
}

TEST_F(ResumeTest, OptionsThatMakeNoSense) {
  expect(lockstep(std::string(kFit) + " --resume=perhaps"), Exit::usage, "perhaps", "--resume=auto");
  expect(lockstep(std::string(kFit) + " --allow-change x"), Exit::usage, "--allow-change goes with --resume");
  begin();
  expect(resume("--allow-change hyperparameters.optimiser"), Exit::usage, "hyperparameters.optimiser");
}

// Checkpoints of earlier versions note a few settings.
TEST_F(ResumeTest, CheckpointsOfEarlierVersions) {
  const json since_0_1 = {
      {"training_samples", 48}, {"global_batch_size", 12}, {"gradient_accumulation", 1}, {"seed", 0},
      {"shuffle", true},        {"drop_last", false},      {"optimizer", "sgd"}};
  json since_0_2 = {{"flip", false},
                    {"crop_padding", 0},
                    {"objective", "classification"},
                    {"precision", "fp32"},
                    {"ema", false}};
  since_0_2.update(since_0_1);
  for (const json& noted : {since_0_1, since_0_2}) {
    fs::remove_all(folder_.file("run"));
    begin();
    const std::string path = folder_.file("run/checkpoints/step-00000002");
    {
      const LoadedCheckpoint loaded = load_checkpoint(path);
      CheckpointContents old{{loaded.model->tensors().begin(), loaded.model->tensors().end()},
                             {loaded.state->tensors().begin(), loaded.state->tensors().end()},
                             loaded.meta};
      for (const char* key : {"job", "data", "lr"}) old.meta.erase(key);
      old.meta["trajectory"] = noted;
      write_checkpoint(folder_.file("run"), old, 0, "");
    }
    expect(resume("--set hyperparameters.seed=4"), Exit::config, "E_RESUME_JOB", "seed 0, now 4");
    expect(resume("--set inputs.training.augment={flip:\\ true}"), Exit::config, "E_RESUME_JOB",
           "flip false, now true");
    expect(resume(), Exit::ok, "warning:", "of an earlier version", fmt::format("{} settings", noted.size()));
    EXPECT_TRUE(meta("step-00000004").contains("job"));
    expect(resume("--set hyperparameters.optimizer.lr=0.3 --set hyperparameters.steps=6"), Exit::config,
           "0.01, now 0.3");
  }
}

TEST_F(ResumeTest, BestOfAnotherMeasureIsForgotten) {
  const std::string held_out = "--set validation_fraction=0.25 ";
  begin(held_out + "--set checkpoint.best_by=validation_loss --set checkpoint.keep=0");
  const double best = meta("step-00000002").value("best", 0.0);
  expect(resume(held_out + "--set checkpoint={best_by:\\ validation_accuracy} --allow-change checkpoint"),
         Exit::ok);
  const json after = meta("step-00000004");
  ASSERT_TRUE(after.contains("best"));
  EXPECT_GE(after.at("best").get<double>(), 0) << "an accuracy, not the loss of before: " << best;
}

}  // namespace
}  // namespace lockstep::testing
