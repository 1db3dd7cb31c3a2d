// SPDX-License-Identifier: Apache-2.0
// `stop`: what makes no sense is refused with its place and key.
#include "tests/launch/job_support.h"
#include "tests/launch/small_run.h"

namespace lockstep::testing {
namespace {

const std::string kHeldOut = kSmallJob + "validation_fraction: 0.1\n";

TEST(StopKeys, WhatIsRefused) {
  JobFolder folder;
  const struct {
    std::string job, stop;
    std::vector<std::string> words;
  } cases[] = {
      {kHeldOut, "{metric: validation_loss}", {"stop.at or stop.patience", "key=stop.at"}},
      {kHeldOut, "{metric: validation_loss, at: 1, patience: 2}", {"not together with stop.at"}},
      {kHeldOut, "{metric: accuracy, at: 1}", {"\"accuracy\" is not one of", "validation_accuracy"}},
      {kHeldOut, "{at: 1}", {"belongs to stop.metric only", "key=stop.at"}},
      {kHeldOut, "{every_steps: 10}", {"belongs to stop.metric only", "key=stop.every_steps"}},
      {kHeldOut, "{metric: validation_loss, at: 1, min_delta: 0.1}", {"belongs to stop.patience only"}},
      {kHeldOut, "{metric: validation_loss, patience: 0}", {"key=stop.patience", "expected 1..1000000"}},
      {kHeldOut,
       "{metric: validation_loss, at: 1, every_steps: 1, every_epochs: 1}",
       {"not together with stop.every_steps"}},
      {kHeldOut, "{metric: validation_accuracy, at: 98}", {"0 to 1", "98", "key=stop.at"}},
      {kHeldOut, "{metric: test_accuracy, patience: 2, min_delta: 5}", {"key=stop.min_delta"}},
      {kSmallJob,
       "{metric: validation_loss, at: 1}",
       {"validation_loss needs validation samples", "key=stop.metric"}},
      {replaced(kSmallJob, "dataset: mnist", "dataset: image_folder"),
       "{metric: test_loss, at: 1}",
       {"test_loss needs test samples", "inputs.test"}},
  };
  for (const auto& c : cases) {
    const auto error = error_of([&] { folder.read(c.job + "stop: " + c.stop + "\n"); });
    ASSERT_TRUE(error) << c.stop;
    EXPECT_EQ(error->code(), 78) << error->what();
    EXPECT_NE(std::string(error->what()).find("job=" + folder.file() + ":1"), std::string::npos)
        << error->what();
    for (const auto& word : c.words)
      EXPECT_NE(std::string(error->what()).find(word), std::string::npos)
          << "no " << word << " in " << error->what();
  }
  const auto diffusion = error_of([&] {
    read_job(LOCKSTEP_SOURCE_DIR "/tests/golden/diffusion/tiny.yaml",
             {"stop={metric: test_accuracy, at: 1}"});
  });
  ASSERT_TRUE(diffusion);
  EXPECT_NE(std::string(diffusion->what()).find("diffusion has no accuracy"), std::string::npos);
}

using StopRuns = SmallRun;

TEST_F(StopRuns, ALookThatNeverComes) {
  for (const std::string command : {"check", "fit"}) {
    expect(lockstep(command + " job.yaml --set 'stop={metric: test_loss, at: 1, every_steps: 5}'"),
           Exit::config, "a look every 5 in a training of 4 never comes", "key=stop.every_steps");
    expect(lockstep(command + " job.yaml --set 'stop={metric: test_loss, at: 1, every_epochs: 2}'"),
           Exit::config, "a look every 2 in a training of 1 never comes", "key=stop.every_epochs");
  }
  expect(lockstep("fit job.yaml --set 'stop={metric: test_loss, at: 1, every_steps: 4}'"), Exit::ok);
}

}  // namespace
}  // namespace lockstep::testing
