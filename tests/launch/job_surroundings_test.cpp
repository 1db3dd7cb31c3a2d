// SPDX-License-Identifier: Apache-2.0
// Where a job comes from, and what its words were meant to be.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/launch/job_support.h"
#include "tests/support/process.h"

namespace lockstep::testing {
namespace {

TEST(JobPaths, ATildeIsTheHomeFolder) {
  const char* home = std::getenv("HOME");
  const std::string before = home ? home : "";
  ::setenv("HOME", "/homes/of-a-test", 1);
  JobFolder folder;
  Job job = folder.read(replaced(kSmallJob, "path: data", "path: ~/data"),
                        {"output.dir=~/runs", "hostfile=~/hosts"});
  EXPECT_EQ(job.training.path, "/homes/of-a-test/data");
  EXPECT_EQ(job.output_dir, "/homes/of-a-test/runs");
  EXPECT_EQ(job.hostfile, "/homes/of-a-test/hosts");
  EXPECT_EQ(folder.read(replaced(kSmallJob, "path: data", "path: \"~\"")).training.path, "/homes/of-a-test");
  EXPECT_EQ(folder.read(replaced(kSmallJob, "path: data", "path: ./~")).training.path, folder.path() + "/~");
  expect_error(
      Exit::config, [&] { folder.read(replaced(kSmallJob, "path: data", "path: ~someone/data")); },
      ":6:", "another user");
  // YAML's ~ is no value.
  expect_error(
      Exit::config, [&] { folder.read(replaced(kSmallJob, "path: data", "path: ~")); },
      ":6:", "\"~\" in quotes");
  ::unsetenv("HOME");
  expect_error(
      Exit::config, [&] { folder.read(replaced(kSmallJob, "path: data", "path: ~/data")); },
      ":6:", "HOME is not set", "inputs.training.path");
  home ? ::setenv("HOME", before.c_str(), 1) : 0;
}

TEST(JobPaths, MustBeUtf8AsTheRunsJobIs) {
  JobFolder folder;
  expect_error(
      Exit::config, [&] { folder.read(kSmallJob, {"inputs.training.path=d\xf6g"}); }, "inputs.training.path",
      "not UTF-8");
}

TEST(JobHints, SayWhatWasMeant) {
  JobFolder folder;
  const auto meant = [&](const std::string& set, const std::string& what) {
    expect_error(
        Exit::config, [&] { folder.read(kSmallJob, {set}); }, "did you mean " + what + "?");
  };
  for (const char* yes : {"True", "TRUE", "yes", "on", "1", "\"true\""})
    if (yes[0] != '"') meant(std::string("hyperparameters.optimizer.nesterov=") + yes, "true");
  meant("hyperparameters.optimizer.nesterov=Off", "false");
  meant("hyperparameters.epochs=1e3", "1000");
  meant("hyperparameters.epochs=2.0", "2");
  meant("hyperparameters.epochs=\"3\"", "3");
  meant("hyperparameters.epochs=1_000", "1000");
  meant("hyperparameters.epochs=007", "7");
  meant("hyperparameters.seed=0x10", "16");
  meant("hyperparameters.optimizer.lr=0,5", "0.5");
  meant("hyperparameters.optimizer.lr=\"1e-3\"", "0.001");
  for (const char* none :
       {"hyperparameters.epochs=1.5", "hyperparameters.epochs=many", "hyperparameters.optimizer.lr=fast"}) {
    const auto e = error_of([&] { folder.read(kSmallJob, {none}); });
    ASSERT_TRUE(e) << none;
    EXPECT_EQ(std::string(e->what()).find("did you mean"), std::string::npos) << e->what();
  }
}

TEST(JobHosts, OfIPv6AreRefusedWhole) {
  JobFolder folder;
  for (const char* host : {"fe80::1", "\"[fe80::1]:2\"", "\"::1\""})
    expect_error(
        Exit::config, [&] { folder.read(kSmallJob, {std::string("hosts=[") + host + "]"}); }, "IPv6",
        "hosts[0]");
  EXPECT_EQ(folder.read(kSmallJob, {"hosts=[a, \"b:2\"]"}).hosts, (std::vector<std::string>{"a:1", "b:2"}));
}

TEST(JobPipe, IsReadOnceAndHandedToTheRanks) {
  TestFolder folder;
  const std::string job =
      "job_name: piped\ninstance_count: 2\nmodel: {layers: [flatten, {linear: {out_features: 10}}]}\n"
      "inputs: {training: {dataset: mnist, path: " LOCKSTEP_SOURCE_DIR
      "/configs/data/mnist, limit: 40}, test: {limit: 8}}\n"
      "hyperparameters: {epochs: 2, global_batch_size: 20, optimizer: {lr: 0.1}}\noutput: {dir: runs}\n";
  write_file(folder.file("job"), job);
  const auto bash = [&](const std::string& script) {
    return run({"bash", "-c", "cd " + folder.path() + "; " + script},
               {{"L", LOCKSTEP_BINARY}, {"XDG_CACHE_HOME", LOCKSTEP_BINARY_DIR "/tests/cache"}});
  };
  // Whoever writes may take time.
  Ended e = bash("$L fit <(sleep 0.3; cat job) --set hyperparameters.epochs=1 --output a");
  EXPECT_EQ(e.code, 0) << e.output;
  EXPECT_NE(read_file(folder.file("a/log.txt")).find("completed at step 2 of 2"), std::string::npos);
  e = bash("cat job | $L fit -");
  EXPECT_EQ(e.code, 0) << e.output;
  EXPECT_TRUE(std::filesystem::exists(folder.file("runs/piped-001/model.safetensors"))) << e.output;
  e = bash("cat job | $L check /dev/stdin && $L check - < job && mkfifo p && (cat job > p & $L check p)");
  EXPECT_EQ(e.code, 0) << e.output;
  // What is resumed is the run's own job.
  e = bash("$L fit a/job.yaml --output a --resume");
  EXPECT_EQ(e.code, 0) << e.output;
  e = bash("mkfifo q; timeout 60 $L check q");
  EXPECT_EQ(e.code, 66) << e.output;
  e = bash("$L check - < /dev/null");
  EXPECT_EQ(e.code, 78) << e.output;
}

}  // namespace
}  // namespace lockstep::testing
