// SPDX-License-Identifier: Apache-2.0
// What bad input gets, from the real program: exit code, and words of the message that a person needs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/comm/device_collectives.h"
#include "runtime/data/dataset.h"
#include "runtime/device/device_runtime.h"
#include "tests/launch/small_run.h"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;

class FailuresTest : public SmallRun {};

TEST_F(FailuresTest, TheJobItselfIsFine) {
  expect(lockstep("check job.yaml"), Exit::ok);
  expect(lockstep("fit job.yaml --output run"), Exit::ok);
}

// Layer by index and name, its place in the job file, and the shapes.
TEST_F(FailuresTest, ModelWhoseShapesDoNotFit) {
  const struct {
    const char* layers;
    std::vector<std::string> words;
  } cases[] = {
      {"[{conv2d: {out_channels: 4, kernel: 9, name: big}}]",
       {"layer=0 (conv2d 'big')", "9x9", "[1, 1, 8, 8]"}},
      {"[relu, {max_pool2d: 3}, {max_pool2d: {kernel: 3, name: second}}]",
       {"layer=2 (max_pool2d 'second')", "3x3", "[1, 1, 2, 2]"}},
      {"[{conv2d: {out_channels: 4, kernel: 3, in_channels: 3}}]",
       {"layer=0 (conv2d)", "in_channels 3", "[1, 1, 8, 8]"}},
      {"[{conv2d: {out_channels: 4, kernel: 3}}, {conv2d: {out_channels: 6, kernel: 1, groups: 3}}]",
       {"layer=1 (conv2d)", "3 groups", "4 input"}},
      {"[{conv2d: {out_channels: 4, kernel: 3}}, {linear: {out_features: 10, name: fc}}]",
       {"layer=1 (linear 'fc')", "[1, 4, 6, 6]", "flatten"}},
      {"[flatten, {linear: {out_features: 10, in_features: 63}}]",
       {"layer=1 (linear)", "in_features 63", "[1, 64]"}},
      {"[{residual: {layers: [{conv2d: {out_channels: 4, kernel: 3, padding: 1}}], name: block}}]",
       {"layer=0 (residual 'block')", "[1, 4, 8, 8]", "[1, 1, 8, 8]"}},
      {"[{residual: {layers: [relu, {conv2d: {out_channels: 4, kernel: 20}}]}}]",
       {"layer=0.layers.1 (conv2d)", "20x20"}},
      {"[{conv2d: {out_channels: 4, kernel: 3}}, {group_norm: 3}]",
       {"layer=1 (group_norm)", "3 groups", "[1, 4, 6, 6]"}},
      {"[{conv2d: {out_channels: 6, kernel: 3}}, {self_attention2d: {heads: 4, groups: 2}}]",
       {"layer=1 (self_attention2d)", "4 heads", "[1, 6, 6, 6]"}},
      {"[{conv2d: {out_channels: 6, kernel: 3}}, self_attention2d]",
       {"layer=1 (self_attention2d)", "32 groups", "[1, 6, 6, 6]"}},
      {"[flatten, self_attention2d]", {"layer=1 (self_attention2d)", "[1, 64]"}},
      {"[flatten, batch_norm2d]", {"layer=1 (batch_norm2d)", "[1, 64]"}},
      {"[flatten, {linear: {out_features: 7}}]", {"[1, 7]", "10 classes"}},
      {"[{conv2d: {out_channels: 10, kernel: 8}}]", {"[1, 10, 1, 1]", "10 classes"}},
  };
  for (const auto& c : cases) {
    write_job(c.layers);
    const Outcome o = lockstep("check job.yaml");
    expect(o, Exit::config, "E_SHAPE");
    for (const auto& word : c.words)
      EXPECT_NE(o.text.find(word), std::string::npos) << "no \"" << word << "\" in: " << o.text;
    if (c.words[0].starts_with("layer=")) {
      EXPECT_NE(o.text.find("job.yaml:3:"), std::string::npos) << o.text;
    }
  }
  // The same from fit, and the launcher passes the code on.
  write_job(cases[0].layers);
  expect(lockstep("fit job.yaml --output run"), Exit::config, "E_SHAPE", "big");
  expect(lockstep("fit job.yaml --output run2 --set instance_count=2"), Exit::config, "E_SHAPE", "big");
}

TEST_F(FailuresTest, ATildeInAnOptionIsTheHomeFolder) {
  const std::string home = "env HOME='" + folder_.path() + "' " LOCKSTEP_BINARY " ";
  expect(shell(home + "fit job.yaml '--output=~/run' '--trace=~/trace.json'"), Exit::ok);
  EXPECT_TRUE(fs::exists(folder_.file("run/model.json")));
  EXPECT_TRUE(fs::exists(folder_.file("trace.json")));
  expect(shell(home + "evaluate run '--data=~'"), Exit::ok, "48 images");
  expect(shell(home + "evaluate run '--data=~nobody/x'"), Exit::usage, "--data=~nobody/x", "another user");
  expect(shell("env -u HOME " LOCKSTEP_BINARY " fit job.yaml '--output=~/run'"), Exit::usage,
         "HOME is not set");
  EXPECT_FALSE(fs::exists(folder_.file("~")));
}

#ifndef LOCKSTEP_SANITIZED  // which take addresses of their own
// Fewer addresses than the images take: the program says what ran out, and for what.
TEST_F(FailuresTest, MemoryThatRunsOut) {
  expect(lockstep("fit job.yaml --output run"), Exit::ok);
  constexpr uint32_t kImages = 4096, kLargeSide = 1024;  // 4 GB, none of which is written
  const std::string images = folder_.file("large/t10k-images-idx3-ubyte");
  fs::create_directory(folder_.file("large"));
  write_file(images,
             big_endian(0x803) + big_endian(kImages) + big_endian(kLargeSide) + big_endian(kLargeSide));
  fs::resize_file(images, 16 + uint64_t{kImages} * kLargeSide * kLargeSide);
  write_file(folder_.file("large/t10k-labels-idx1-ubyte"),
             big_endian(0x801) + big_endian(kImages) + std::string(kImages, '\0'));
  expect(shell("sh -c 'ulimit -v 3000000; exec " LOCKSTEP_BINARY " evaluate run --data large'"), Exit::io,
         "E_MEMORY", "memory ran out", "limit of addresses is 2929 MB", "file=large");
}
#endif

TEST_F(FailuresTest, MissingData) {
  for (const std::string command : {"check", "fit", "plan"})
    expect(lockstep(command + " job.yaml --set inputs.training.path=nowhere"), Exit::no_input,
           "nowhere/train-images", "lockstep data get mnist --to", "nowhere");
  fs::remove(folder_.file("train-labels-idx1-ubyte"));
  expect(lockstep("fit job.yaml --set instance_count=2"), Exit::no_input, "train-labels",
         "lockstep data get mnist");
}

TEST_F(FailuresTest, MissingCheckpoint) {
  expect(lockstep("fit job.yaml --resume --output nowhere"), Exit::no_input, "nowhere", "--resume");
  expect(lockstep("fit job.yaml --set model.init_from=nowhere.safetensors"), Exit::no_input,
         "nowhere.safetensors", "lockstep fit");
  expect(lockstep("evaluate nowhere"), Exit::no_input, "nowhere", "lockstep fit");
  expect(lockstep("predict nowhere x.png"), Exit::no_input, "nowhere", "lockstep fit");
  fs::create_directory(folder_.file("empty"));
  expect(lockstep("fit job.yaml --set model.init_from=empty"), Exit::no_input, "empty", "lockstep fit");
}

TEST_F(FailuresTest, BadData) {
  const std::string images = folder_.file("train-images-idx3-ubyte"),
                    labels = folder_.file("train-labels-idx1-ubyte");
  const std::string good_images = read_file(images), good_labels = read_file(labels);
  const auto with = [&](const std::string& path, const std::string& bytes) {
    write_file(images, good_images), write_file(labels, good_labels);
    write_file(path, bytes);
    return lockstep("fit job.yaml");
  };
  expect(with(images, good_images.substr(0, 1000)), Exit::data, images, "offset=16", "3072", "984");
  expect(with(images, good_images + "xy"), Exit::data, images, "offset=3088", "expected", "found");
  expect(with(images, "\x01" + good_images.substr(1)), Exit::data, images, "offset=0", "0x00000803",
         "0x01000803");
  expect(with(images, good_images.substr(0, 3)), Exit::data, images, "offset=", "expected", "found");
  expect(with(labels, good_labels.substr(0, 20)), Exit::data, labels, "offset=8", "48", "12");
  expect(with(labels, good_labels + "x"), Exit::data, labels, "offset=56");
  std::string wild = good_labels;
  wild[8 + 5] = 10;
  expect(with(labels, wild), Exit::data, labels, "offset=13", "0 to 9", "found 10");
  expect(lockstep("check job.yaml"), Exit::data, "offset=13");
  expect(lockstep("fit job.yaml --set instance_count=2"), Exit::data, labels, "offset=13", "found 10");
}

// Pictures of many sizes, one cut short: named and the end of it, or skipped, counted and named in the log.
TEST_F(FailuresTest, DamagedImage) {
  for (int i = 0; i < 12; ++i) {
    const int64_t height = 8 + i % 3, width = 9 + i % 4;
    Image image{1, height, width,
                std::vector<uint8_t>(static_cast<size_t>(height * width), static_cast<uint8_t>(20 * i))};
    const std::string path = folder_.file(fmt::format("pictures/{}/{:02}.png", i % 2 ? "dark" : "light", i));
    fs::create_directories(fs::path(path).parent_path());
    write_png(path, image);
    if (i == 5) fs::resize_file(path, 60);
  }
  const std::string job =
      "job_name: test\nmodel: {layers: [flatten, {linear: {out_features: 2}}]}\n"
      "inputs: {training: {dataset: image_folder, path: pictures, resize: 8, crop: 7, augment: {flip: "
      "true}}}\n"
      "hyperparameters: {epochs: 1, global_batch_size: 4, optimizer: {name: sgd, lr: 0.01}}\n";
  write_file(folder_.file("job.yaml"), job);
  const std::string bad = folder_.file("pictures/dark/05.png");
  expect(lockstep("fit job.yaml --output stopped"), Exit::data, "E_IMAGE_PNG", "file=" + bad);

  const auto ended = lockstep("fit job.yaml --output run --set inputs.training.on_bad_image=skip");
  expect(ended, Exit::ok, "1 of 12 images in " + folder_.file("pictures"));
  const auto status = nlohmann::json::parse(read_file(folder_.file("run/status.json")));
  EXPECT_EQ(status.at("skipped_images"), 1);
  EXPECT_EQ(status.at("steps"), 3);  // 11 images
  EXPECT_NE(read_file(folder_.file("run/log.txt")).find("skipped " + bad), std::string::npos);
  // Pictures of any size are fitted for the model.
  expect(lockstep("predict run pictures/light/00.png pictures/dark/07.png"), Exit::ok, "00.png", "07.png");
}

TEST_F(FailuresTest, DamagedCheckpoint) {
  ASSERT_EQ(lockstep("fit job.yaml --output run").code, 0);
  fs::remove_all(folder_.file("run/checkpoints/step-00000002"));
  const std::string path = folder_.file("run/checkpoints/step-00000004/model.safetensors");
  const std::string good = read_file(path);
  std::string bad = good;
  bad.back() = static_cast<char>(bad.back() ^ 1);  // one bit of the last tensor
  write_file(path, bad);
  expect(lockstep("fit job.yaml --resume --output run"), Exit::data, "model.safetensors", "last.");
  expect(lockstep("fit job.yaml --output other --set model.init_from=run/checkpoints/step-00000004"),
         Exit::data, "model.safetensors", "last.");
  write_file(path, good.substr(0, good.size() - 7));
  expect(lockstep("fit job.yaml --resume --output run"), Exit::data, "model.safetensors", "expected",
         "found");
  write_file(path, good);
  expect(lockstep("fit job.yaml --resume --output run"), Exit::ok);
}

TEST_F(FailuresTest, TensorsOfInitFromDoNotMatch) {
  ASSERT_EQ(lockstep("fit job.yaml --output run").code, 0);
  expect(lockstep("fit job.yaml --output same --set model.init_from=run"), Exit::ok);
  write_job(
      "[{conv2d: {out_channels: 6, kernel: 3, name: first}}, relu, flatten, {linear: {out_features: 10, "
      "name: end}}]");
  for (const std::string ranks : {"1", "2"})
    expect(lockstep("fit job.yaml --set model.init_from=run/model.safetensors --set instance_count=" + ranks +
                    " --output bad" + ranks),
           Exit::data, "run/model.safetensors", "missing \"end.weight\"", "missing \"end.bias\"",
           "surplus \"last.weight\"", "surplus \"last.bias\"",
           "\"first.weight\" is F32[4, 1, 3, 3], expected F32[6, 1, 3, 3]", "\"first.bias\"");
}

TEST_F(FailuresTest, LauncherOfAnotherRankCount) {
  expect(shell(mpirun(3) + LOCKSTEP_BINARY " fit job.yaml --set instance_count=2"), Exit::disagree,
         "instance_count: 2", "3 ranks");
  EXPECT_FALSE(fs::exists(folder_.file("runs"))) << "nothing is left behind";
}

TEST_F(FailuresTest, RanksWithDifferentJobs) {
  // By a shell in each rank: Open MPI 5.0.7's mpirun crashes where it is given two programs.
  const Outcome o = shell(mpirun(2) + "sh -c '" LOCKSTEP_BINARY
                                      " fit job.yaml --set instance_count=2 "
                                      "--set hyperparameters.seed=$OMPI_COMM_WORLD_RANK'");
  expect(o, Exit::disagree, "resolved job", "rank");
}

// On its host, that is: rank 0 has all it needs, and nothing to say.
TEST_F(FailuresTest, AFileThatOneRankLacks) {
  fs::copy(folder_.file("job.yaml"), folder_.file("job0.yaml"));
  const auto fit = [&](const std::string& words) {
    return shell(mpirun(2) + "sh -c 'exec " LOCKSTEP_BINARY " fit " + words + " --set instance_count=2'");
  };
  expect(fit("job$OMPI_COMM_WORLD_RANK.yaml"), Exit::no_input, "rank=1", "host=", "job1.yaml");
  // One path that is another folder for each rank.
  for (const char* at : {"at0", "at1"}) fs::create_directory(folder_.file(at));
  for (const char* file : {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                           "t10k-labels-idx1-ubyte"})
    fs::copy(folder_.file(file), folder_.file(std::string("at0/") + file));
  expect(
      shell(mpirun(2) + "sh -c 'cd at$OMPI_COMM_WORLD_RANK; exec " LOCKSTEP_BINARY
                        " fit ../job.yaml --set inputs.training.path=/proc/self/cwd --set instance_count=2'"),
      Exit::no_input, "rank=1", "train-images");
}

TEST_F(FailuresTest, OutputThatCannotBeCreated) {
  expect(lockstep("fit job.yaml --output /proc/nowhere/run"), Exit::cannot_create, "/proc/nowhere/run");
  write_file(folder_.file("file"), "");
  expect(lockstep("fit job.yaml --set output.dir=file"), Exit::cannot_create, "file");
  expect(lockstep("fit job.yaml --output file/run --set instance_count=2"), Exit::cannot_create, "file/run");
}

TEST_F(FailuresTest, OutputThatAnotherJobHolds) {
  ASSERT_EQ(lockstep("fit job.yaml --output run").code, 0);
  const int lock = ::open(folder_.file("run/.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  ASSERT_EQ(::flock(lock, LOCK_EX | LOCK_NB), 0) << "a run that has ended holds no lock";
  expect(lockstep("fit job.yaml --resume --output run"), Exit::cannot_create, "run", "another job");
  ::close(lock);
  expect(lockstep("fit job.yaml --output run"), Exit::cannot_create, "run", "--resume");
  expect(lockstep("fit job.yaml --resume --output run"), Exit::ok);
}

// Names of files, folders and classes, and what a job or a person says, in all that reaches a terminal, and in the log.
TEST_F(FailuresTest, NamesOrderNoTerminalAbout) {
  const std::string evil = "e\x1b]0;owned\x07\u009b2J", shown = "e\\x1b]0;owned\\x07\\x9b2J";
  const auto expect_shown = [&](const Outcome& o, int code) {
    EXPECT_EQ(o.code, code) << o.text;
    EXPECT_NE(o.text.find(shown), std::string::npos) << o.text;
    for (const std::string order : {"\x1b", "\x07", "\u009b"})
      EXPECT_EQ(o.text.find(order), std::string::npos) << o.text;
  };
  for (const std::string& folder : {"pictures/" + evil, std::string("pictures/b")}) {
    fs::create_directories(folder_.file(folder));
    for (int i = 0; i < 3; ++i)
      write_png(folder_.file(fmt::format("{}/{}.png", folder, i)),
                Image{1, 8, 8, std::vector<uint8_t>(64, static_cast<uint8_t>(30 * i))});
  }
  write_file(folder_.file("pictures/b/" + evil + ".png"), "no picture");
  write_file(folder_.file("job.yaml"),
             "job_name: test\nmodel: {layers: [flatten, {linear: {out_features: 2}}]}\n"
             "inputs: {training: {dataset: image_folder, path: pictures, on_bad_image: skip}}\n"
             "hyperparameters: {epochs: 1, global_batch_size: 2, optimizer: {name: sgd, lr: 0.01}}\n");
  expect_shown(lockstep("check job.yaml"), 0);
  expect_shown(lockstep("check '" + evil + ".yaml'"), 66);
  expect_shown(lockstep("check job.yaml --set '" + evil + "=1'"), 78);
  expect_shown(lockstep("'" + evil + "'"), 64);
  const std::string run = "run" + evil;
  expect_shown(lockstep("fit job.yaml --output '" + run + "'"), 0);
  Outcome log;
  log.code = 0, log.text = read_file(folder_.file(run + "/log.txt"));
  expect_shown(log, 0);
  expect_shown(lockstep("fit job.yaml --set instance_count=2 --output '" + run + "2'"), 0);
  expect_shown(lockstep("fit job.yaml --output '" + run + "'"), 73);
  expect_shown(lockstep("predict '" + run + "' '" + folder_.file("pictures/" + evil + "/0.png") + "'"), 0);
  expect_shown(lockstep("evaluate '" + run + "' --data '" + evil + "'"), 66);
  expect_shown(lockstep("report '" + run + "' --out '" + evil + ".html'"), 0);
}

// A limit on file sizes stands in for a full disk: the write fails in the middle.
TEST_F(FailuresTest, WriteThatFailsLeavesEarlierCheckpoints) {
  write_job("[flatten, {linear: {out_features: 200}}, relu, {linear: {out_features: 10, name: last}}]");
  ASSERT_EQ(lockstep("fit job.yaml --output run").code, 0);
  const std::string before = read_file(folder_.file("run/checkpoints/step-00000004/model.safetensors"));
  ASSERT_GT(before.size(), 40000u);
  const std::string fit = LOCKSTEP_BINARY " fit job.yaml --resume --output run --set hyperparameters.steps=8";
  expect(shell("sh -c \"ulimit -f 64; exec " + fit + "\""), Exit::io, "run/checkpoints", ".safetensors");
  const auto status = nlohmann::json::parse(read_file(folder_.file("run/status.json")));
  EXPECT_EQ(status.at("state"), "failed");
  EXPECT_EQ(status.at("code"), 74);
  EXPECT_EQ(read_file(folder_.file("run/checkpoints/step-00000004/model.safetensors")), before);
  EXPECT_FALSE(fs::exists(folder_.file("run/checkpoints/step-00000006")));
  expect(shell(fit), Exit::ok);
}

TEST_F(FailuresTest, LossThatIsNotFinite) {
  // Layers without an activation between: no unit can die, so the weights grow until they overflow.
  write_job(
      "[flatten, {linear: {out_features: 20}}, {linear: {out_features: 20}}, {linear: {out_features: 10, "
      "name: last}}]");
  const std::string diverging =
      "fit job.yaml --set hyperparameters.optimizer.lr=1e6 --set hyperparameters.steps=40 --output ";
  for (const std::string ranks : {"1", "2"}) {
    const std::string run = "run" + ranks;
    const Outcome o = lockstep(diverging + run + " --set instance_count=" + ranks);
    expect(o, Exit::diverged, "E_DIVERGED", "step=", "op=", "of layer");
    const auto status = nlohmann::json::parse(read_file(folder_.file(run + "/status.json")));
    EXPECT_EQ(status.at("state"), "failed");
    EXPECT_EQ(status.at("code"), 80);
    EXPECT_GT(status.at("step"), 1);
    EXPECT_NE(o.text.find(fmt::format("step={} ", status.at("step").get<int>())), std::string::npos)
        << o.text;
  }
}

// Where nobody can be told, the exit code still says what happened.
TEST_F(FailuresTest, MessageThatCannotBeWritten) {
  EXPECT_EQ(shell("sh -c '" LOCKSTEP_BINARY " nonsense 2>/dev/full'").code, static_cast<int>(Exit::usage));
  EXPECT_EQ(shell("sh -c '" LOCKSTEP_BINARY " fit job.yaml --output /proc/x 2>/dev/full'").code,
            static_cast<int>(Exit::cannot_create));
}

// Of builds with CUDA too, the tests run where no GPU is to be seen.
TEST_F(FailuresTest, WhatThisBuildOrMachineLacks) {
  for (const std::string command : {"check", "fit", "plan"}) {
    expect(lockstep(command + " job.yaml --set gradient_precision=bf16"), Exit::config, "E_JOB_UNAVAILABLE",
           "job=--set gradient_precision", "key=gradient_precision", "no GPU", "fp32 works here");
    if (command == "plan" && has_cuda() && has_nccl()) continue;  // a plan needs no GPU
    expect(lockstep(command + " job.yaml --set backend=nccl"), Exit::config, "nccl", "key=backend",
           "works here");
    expect(lockstep(command + " job.yaml --set device=cuda"), Exit::config, "key=device", "device: cpu");
  }
  if (!has_cuda()) return;
  expect(lockstep("plan job.yaml --device cuda"), Exit::ok,
         "Kernels are chosen on the GPU when the job starts");
}

}  // namespace
}  // namespace lockstep::testing
