// SPDX-License-Identifier: Apache-2.0
// `lockstep check` says "fine" only where `fit` would start.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/distributed/colours.h"
#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

class Check : public ::testing::Test {
 protected:
  Check() {
    put_idx("a", 8);
    put_idx("b", 4);
    write_file(folder_.file("job.yaml"),
               "model: {layers: [flatten, {linear: {out_features: 2}}]}\n"
               "inputs: {training: {dataset: idx, path: a-images-idx3-ubyte}, test: {dataset: idx, path: "
               "b-images-idx3-ubyte}}\n"
               "hyperparameters: {epochs: 1, global_batch_size: 4, optimizer: {lr: 0.1}}\n");
  }
  void put_idx(const std::string& name, int count) {
    std::string images("\0\0\x08\x03\0\0\0\0\0\0\0\x02\0\0\0\x02", 16), labels("\0\0\x08\x01\0\0\0\0", 8);
    images[7] = labels[7] = static_cast<char>(count);
    for (int i = 0; i < count; ++i)
      images += std::string(4, static_cast<char>(i)), labels += static_cast<char>(i % 2);
    write_file(folder_.file(name + "-images-idx3-ubyte"), images);
    write_file(folder_.file(name + "-labels-idx1-ubyte"), labels);
  }
  Ended shell(const std::string& script) {
    return run({"sh", "-c", "cd " + folder_.path() + "; " + script},
               {{"L", LOCKSTEP_BINARY}, {"XDG_CACHE_HOME", folder_.file("cache")}});
  }
  // Both commands end so, and both say these words.
  void expect_both(int code, const std::string& options, const std::vector<std::string>& words) {
    for (const std::string& command : {"check job.yaml " + options, "fit job.yaml --output run " + options}) {
      std::filesystem::remove_all(folder_.file("run"));
      const Ended e = shell("$L " + command);
      EXPECT_EQ(e.code, code) << command << "\n" << e.output;
      for (const std::string& word : words)
        EXPECT_NE(e.output.find(word), std::string::npos) << command << "\n" << e.output;
    }
  }
  TestFolder folder_;
};

TEST_F(Check, ReadsTheSizesOfBodies) {
  expect_both(0, "", {});
  for (const std::string name : {"a", "b"}) {  // the test half too
    const std::string file = name + "-images-idx3-ubyte", path = folder_.file(file), whole = read_file(path);
    write_file(path, whole.substr(0, whole.size() - 1));
    expect_both(65, "", {file, "E_DATA_TRUNCATED"});
    write_file(path, whole + "x");
    expect_both(65, "", {file, "E_DATA_OVERLONG"});
    write_file(path, whole);
    // Compressed, a file's size says nothing: the content ends early, or is damaged.
    for (const char* cut : {"gzip -c F | head -c -3 > z", "head -c -1 F | gzip -c > z"}) {
      shell("cp " + file + " F; " + cut + "; mv z " + file);
      expect_both(65, "", {file});
      write_file(path, whole);
    }
    shell("gzip -c " + file + " > z; mv z " + file);
    expect_both(0, "", {});
    write_file(path, whole);
  }
}

TEST_F(Check, ComparesTheWeightsToStartFrom) {
  ASSERT_EQ(shell("$L fit job.yaml --output before").code, 0);
  expect_both(0, "--set model.init_from=before", {});
  expect_both(
      65,
      "--set model.init_from=before --set 'model.layers=[flatten, {linear: {out_features: 2, bias: false}}]'",
      {"E_TENSORS", "surplus", "job=--set model.init_from", "key=model.init_from"});
  expect_both(66, "--set model.init_from=nothing", {"nothing"});
  write_file(folder_.file("w.safetensors"), "version https://git-lfs.github.com/spec/v1\n");
  expect_both(65, "--set model.init_from=w.safetensors", {"LFS pointer"});
}

// What the weights to start from were trained for stands in the model.json beside them.
TEST_F(Check, ComparesTheModelToStartFrom) {
  write_colours(folder_.file("animals"), {"cat", "dog", "fox"});
  write_colours(folder_.file("mixed"), {"ant", "cat", "fox"});
  write_file(folder_.file("job.yaml"),
             "model: {layers: [flatten, {linear: {out_features: 3}}]}\n"
             "inputs: {training: {dataset: image_folder, path: animals}}\n"
             "hyperparameters: {epochs: 1, global_batch_size: 6, optimizer: {lr: 0.1}}\n");
  ASSERT_EQ(shell("$L fit job.yaml --output before").code, 0);
  const std::string from = "--set model.init_from=before",
                    word = "model.init_from: ", mixed = " --set inputs.training.path=mixed";
  for (const std::string file : {"", "/model.safetensors"}) {
    expect_both(0, from + file + mixed,
                {word, "trained for other classes", "0 was cat, is ant; 1 was dog, is cat\n"});
    expect_both(0, from + file + " --set 'inputs.training.normalize={mean: 0.5, std: 0.5}'",
                {word, "mean [0, 0, 0] and std [1, 1, 1], this job's are by mean [0.5, 0.5, 0.5]"});
  }
  // Nothing to say: the same classes, and a file that no model.json speaks of.
  shell("cp before/model.safetensors before/mine.safetensors");
  for (const std::string& options : {from, from + "/mine.safetensors" + mixed})
    for (const std::string command : {"check job.yaml ", "fit job.yaml --output again "}) {
      std::filesystem::remove_all(folder_.file("again"));
      const Ended e = shell("$L " + command + options);
      EXPECT_EQ(e.code, 0) << e.output;
      EXPECT_EQ(e.output.find(word), std::string::npos) << e.output;
    }
}

TEST_F(Check, LooksAtTheFolderOfRuns) {
  write_file(folder_.file("file"), "");
  for (const char* dir : {"file", "file/runs"}) {
    const Ended e = shell(std::string("$L check job.yaml --set output.dir=") + dir);
    EXPECT_EQ(e.code, 73) << e.output;
    EXPECT_NE(e.output.find(folder_.file("file")), std::string::npos) << e.output;
  }
  const Ended e = shell("$L check job.yaml --set output.dir=new/below && test ! -e new");
  EXPECT_EQ(e.code, 0) << e.output;
}

TEST_F(Check, ShowsWhatFitWouldRemark) {
  const std::string picture = read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/check/picture.png");
  for (const char* name : {"cat/0", "cat/1", "dog/0", "dog/1"}) {
    std::filesystem::create_directories(
        std::filesystem::path(folder_.file(std::string("data/") + name)).parent_path());
    write_file(folder_.file(std::string("data/") + name + ".png"), picture);
  }
  write_file(folder_.file("data/cat/Thumbs.db"), "x");
  write_file(folder_.file("data/dog/2.png"), "no picture");
  std::filesystem::rename(folder_.file("data/dog"), folder_.file("data/d\nog"));
  const Ended e = shell(
      "sed -i '2s/.*/inputs: {training: {dataset: image_folder, path: data, on_bad_image: skip}}/' job.yaml; "
      "$L check job.yaml");
  EXPECT_EQ(e.code, 0) << e.output;
  for (const char* word :
       {"Thumbs.db", "og/2.png", "classes: cat 2, d\\x0aog 2", "4 training images", "does not decode"})
    EXPECT_NE(e.output.find(word), std::string::npos) << word << "\n" << e.output;
}

// Names end in .invalid, which no resolver knows (RFC 6761).
TEST_F(Check, FindsMpirunAndTheMachines) {
  expect_both(78, "--set instance_count=2 --set 'hosts=[localhost:1, node7.invalid:1]'",
              {"E_JOB_HOST", "hosts[1]: node7.invalid: ", "--set hosts", "key=hosts"});
  write_file(folder_.file("cluster.txt"), "localhost slots=2  # here\n\nroot@node8.invalid slots=2\n");
  expect_both(78, "--set instance_count=4 --set hostfile=cluster.txt",
              {"E_JOB_HOST", "cluster.txt:3: node8.invalid: ", "key=hostfile"});
  write_file(folder_.file("cluster.txt"), "localhost slots=1\n127.0.0.1 slots=1\n");
  const std::string ranks = "--set hostfile=cluster.txt --set instance_count=";
  EXPECT_EQ(shell("$L check job.yaml " + ranks + "2").code, 0);
  expect_both(78, ranks + "3", {"cluster.txt", "2 slots for instance_count 3"});
  // Names that ssh's configuration has, and those of somebody else's.
  std::filesystem::create_directories(folder_.file("bin"));
  write_file(folder_.file("bin/ssh"), "#!/bin/sh\n[ $3 = node7.invalid ] && echo hostname localhost\n");
  std::filesystem::permissions(folder_.file("bin/ssh"), std::filesystem::perms::all);
  const std::string hosts = "$L check job.yaml --set instance_count=2 --set 'hosts=[node7.invalid:2]'";
  EXPECT_EQ(shell("PATH=$PWD/bin:$PATH; " + hosts).code, 0);
  EXPECT_EQ(shell("export SLURM_JOB_ID=7; " + hosts).code, 0);
  // mpirun itself.
  const Ended none = shell("PATH=/none; $L check job.yaml --set instance_count=2");
  EXPECT_EQ(none.code, 78) << none.output;
  EXPECT_NE(none.output.find("E_NO_MPIRUN"), std::string::npos) << none.output;
}

}  // namespace
}  // namespace lockstep::testing
