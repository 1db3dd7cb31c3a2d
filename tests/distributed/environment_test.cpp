// SPDX-License-Identifier: Apache-2.0
// The program in odd surroundings: output that nobody takes, no home, another MPI, private files, names of any bytes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::environment_test {
namespace {
namespace fs = std::filesystem;

// Two classes of four grey pictures of 2x2, as PGM's successor: an IDX file.
constexpr const char* kJob = R"(job_name: tiny
instance_count: 2
model: {layers: [flatten, {linear: {out_features: 2}}]}
inputs: {training: {dataset: idx, path: a-images-idx3-ubyte}}
hyperparameters: {epochs: 3, global_batch_size: 4, optimizer: {lr: 0.1}}
)";

class Surroundings : public ::testing::Test {
 protected:
  Surroundings() {
    std::string images("\0\0\x08\x03\0\0\0\x08\0\0\0\x02\0\0\0\x02", 16), labels("\0\0\x08\x01\0\0\0\x08", 8);
    for (int i = 0; i < 8; ++i)
      images += std::string(4, static_cast<char>(i * 30)), labels += static_cast<char>(i % 2);
    write_file(folder_.file("a-images-idx3-ubyte"), images);
    write_file(folder_.file("a-labels-idx1-ubyte"), labels);
    write_file(folder_.file("job.yaml"), kJob);
    fs::permissions(folder_.path(), fs::perms::all);
  }
  // $L: the program; run in the folder.
  Ended shell(const std::string& script, std::map<std::string, std::string> environment = {}) {
    environment.insert({{"L", LOCKSTEP_BINARY}, {"XDG_CACHE_HOME", folder_.file("cache")}});
    return run({"sh", "-c", "cd " + folder_.path() + "; " + script}, environment);
  }
  void expect(int code, const std::string& script, const std::vector<std::string>& words,
              const std::map<std::string, std::string>& environment = {}) {
    const Ended e = shell(script, environment);
    EXPECT_EQ(e.code, code) << script << "\n" << e.output;
    for (const std::string& word : words)
      EXPECT_NE(e.output.find(word), std::string::npos) << script << "\n" << e.output;
  }
  std::string log(const std::string& run) { return read_file(folder_.file(run + "/log.txt")); }
  // As a user that the system does not know, where the test runs as root.
  static std::string as_nobody() {
    return ::geteuid() == 0 ? "setpriv --reuid 4321 --regid 4321 --clear-groups " : "";
  }
  TestFolder folder_;
};

TEST_F(Surroundings, OutputThatCannotBeWrittenIs74) {
  for (const char* command :
       {"--help", "--version", "man", "completion bash", "fit --help", "fit --help-keys", "kernels",
        "check job.yaml", "check job.yaml --resolved", "plan job.yaml", "plan job.yaml --json"}) {
    expect(74, std::string("$L ") + command + " > /dev/full", {"E_OUTPUT"});
    expect(74, std::string("$L ") + command + " >&-", {"E_OUTPUT"});
  }
  // A reader that leaves: more than a pipe holds, so that the writer sees it.
  expect(74, "($L man; echo $? > code) | true; exit $(cat code)", {});
  // The command's own failure counts, also where nobody can be told of it.
  expect(66, "$L check none.yaml > /dev/full", {"E_JOB_MISSING"});
  expect(66, "$L check none.yaml 2> /dev/full", {});
}

TEST_F(Surroundings, FitGoesOnWithoutItsTerminal) {
  for (const std::string ranks : {"1", "2"}) {
    const std::string fit = "$L fit job.yaml --set instance_count=" + ranks + " --output run";
    for (const std::string& out :
         {fit + ranks + "full > /dev/full", fit + ranks + "none >&- 2>&-",
          "(sleep 0.2; " + fit + ranks + "pipe; echo $? > code) | true; exit $(cat code)"})
      expect(0, out, {});
    for (const char* how : {"full", "none", "pipe"}) {
      const std::string text = log("run" + ranks + how);
      EXPECT_NE(text.find("standard output"), std::string::npos) << text;
      EXPECT_NE(text.find("completed at step 6"), std::string::npos) << text;
    }
  }
  const Ended e = shell("$L predict run1full none.png > /dev/full");
  EXPECT_EQ(e.code, 66) << e.output;
}

TEST_F(Surroundings, OfMpirun) {
  expect(0, "$L fit job.yaml --output a", {"TMPDIR=/none", "/tmp is used"}, {{"TMPDIR", "/none"}});
  write_file(folder_.file("file"), "");
  expect(0, "$L fit job.yaml --output b", {"/tmp is used"}, {{"TMPDIR", folder_.file("file")}});
  expect(0, "env -u HOME " + as_nobody() + "$L fit job.yaml --output c", {"Run folder"});
  expect(0, "env HOME= " + as_nobody() + "$L fit job.yaml --output d", {"Run folder"});
}

TEST_F(Surroundings, AnotherMpisMpirunIsNamed) {
  fs::create_directories(folder_.file("bin"));
  const std::string mpirun = folder_.file("bin/mpirun");
  const std::string path = folder_.file("bin") + ":" + std::getenv("PATH");
  for (const char* script :
       {"#!/bin/sh\necho '[mpiexec] unrecognized argument allow-run-as-root' >&2\nexit 255\n",
        "#!/bin/sh\n[ $1 = --version ] && echo 'HYDRA build details:' && exit 0\nexit 1\n",
        "#!/bin/sh\nexit 1\n"}) {
    write_file(mpirun, script);
    fs::permissions(mpirun, fs::perms::all);
    expect(69, "$L fit job.yaml --output run", {"E_MPIRUN_OTHER", mpirun, "Open MPI's is needed"},
           {{"PATH", path}});
  }
  // Open MPI's, which fails for a reason of its own.
  write_file(mpirun, "#!/bin/sh\n[ $1 = --version ] && echo 'mpirun (Open MPI) 4.1.4' && exit 0\nexit 1\n");
  expect(69, "$L fit job.yaml --output run", {"E_MPIRUN]"}, {{"PATH", path}});
  EXPECT_FALSE(fs::exists(folder_.file("run")));
}

TEST_F(Surroundings, AStepOfOneTaskLaunchesNoRanks) {
  const std::map<std::string, std::string> slurm = {{"SLURM_JOB_ID", "7"},
                                                    {"SLURM_STEP_ID", "0"},
                                                    {"SLURM_PROCID", "0"},
                                                    {"SLURM_NTASKS", "1"},
                                                    {"SLURM_STEP_NUM_TASKS", "1"},
                                                    {"SLURM_LOCALID", "0"},
                                                    {"SLURM_STEP_TASKS_PER_NODE", "1"}};
  expect(0, "$L fit job.yaml --output run", {"Run folder"}, slurm);
  EXPECT_NE(log("run").find("rank 0 of 2"), std::string::npos);
  // PMI's variables say the same of a launcher that has one rank.
  expect(0, "$L fit job.yaml --output other", {"Run folder"}, {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}});
  EXPECT_NE(log("other").find("rank 0 of 2"), std::string::npos);
  // One task of several is a rank.
  auto two = slurm;
  two["PMIX_RANK"] = "0";
  two["SLURM_STEP_NUM_TASKS"] = two["SLURM_NTASKS"] = "3";
  expect(76, "$L fit job.yaml --output third", {"E_RANK_COUNT"}, two);
}

// Tasks of `srun --mpi=none` or pmi2, which Open MPI would end with words of its own.
TEST_F(Surroundings, AStepWithoutPmixIsRefused) {
  const std::map<std::string, std::string> slurm = {{"SLURM_JOB_ID", "7"},
                                                    {"SLURM_STEP_ID", "0"},
                                                    {"SLURM_PROCID", "0"},
                                                    {"SLURM_NTASKS", "2"},
                                                    {"SLURM_STEP_NUM_TASKS", "2"},
                                                    {"SLURM_LOCALID", "0"},
                                                    {"SLURM_STEP_TASKS_PER_NODE", "2"}};
  const std::vector<std::string> words = {"E_SRUN_PMIX", "srun has started 2 tasks without PMIx",
                                          "srun --mpi=pmix lockstep fit job.yaml"};
  expect(69, "$L fit job.yaml --output run", words, slurm);
  auto pmi2 = slurm;
  pmi2.insert({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"PMI_FD", "3"}});
  expect(69, "$L fit job.yaml --output run", words, pmi2);
}

TEST_F(Surroundings, TorchrunStartsNoRanks) {
  const std::map<std::string, std::string> here = {
      {"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_WORLD_SIZE", "2"}};
  expect(78, "$L fit job.yaml --output run",
         {"E_TORCHRUN", "without torchrun: lockstep fit job.yaml --set instance_count=2"}, here);
  // A job of one rank would be trained twice.
  expect(78, "$L fit job.yaml --set instance_count=1 --output run", {"E_TORCHRUN"}, here);
  expect(78, "$L fit job.yaml --output run", {"--set 'hosts=[\"HOST:2\", ...]'", "MPIJob"},
         {{"RANK", "0"}, {"WORLD_SIZE", "4"}, {"LOCAL_WORLD_SIZE", "2"}});
  expect(0, "$L fit job.yaml --output run", {"Run folder"}, {{"RANK", "0"}, {"WORLD_SIZE", "1"}});
}

TEST_F(Surroundings, AnAllocationThatDoesNotSuitIsRefused) {
  expect(78, "$L fit job.yaml --output run", {"E_ALLOCATION", "3 nodes"},
         {{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_NODELIST", "n[1-3]"}, {"SLURM_TASKS_PER_NODE", "1(x3)"}});
}

TEST_F(Surroundings, OneRankOfMpirunIsNotTwo) {
  expect(76, "mpirun --allow-run-as-root -n 1 $L fit job.yaml --output run", {"E_RANK_COUNT"});
}

TEST_F(Surroundings, WhatMayNotBeReadIs77) {
  const auto none = fs::perms::none;
  shell(
      "$L fit job.yaml --set instance_count=1 --output run; mkdir -p closed/run; mv run closed/run; chmod -R "
      "a+rX .");
  fs::create_directories(folder_.file("closed/data/cat"));
  shell("cp a-* job.yaml closed; cp closed/run/run/model.safetensors closed");
  fs::permissions(folder_.file("closed"), none);
  const std::string l = as_nobody() + "$L ";
  expect(77, l + "check closed/job.yaml", {"closed/job.yaml"});
  expect(77, l + "check job.yaml --set inputs.training.path=closed/a-images-idx3-ubyte", {"closed/a-"});
  expect(
      77,
      l + "check job.yaml --set inputs.training.path=closed/data --set inputs.training.dataset=image_folder",
      {"closed/data"});
  expect(77, l + "check job.yaml --set inputs.training.path=closed --set inputs.training.dataset=cifar10",
         {"closed"});
  expect(
      77,
      l + "fit job.yaml --set instance_count=1 --output new --set model.init_from=closed/model.safetensors",
      {"closed/model.safetensors"});
  expect(77, l + "predict closed/run/run a.png", {"closed/run/run"});
  expect(77, l + "evaluate closed/run/run", {"closed/run/run"});
  expect(77, l + "sample closed/run/run", {"closed/run/run"});
  expect(77, l + "fit job.yaml --resume --set instance_count=1 --output closed/run/run", {"closed/run/run"});
  fs::permissions(folder_.file("closed"), fs::perms::all);
}

TEST_F(Surroundings, APipeWhereAFileIsExpectedIs66) {
  const std::string timed = "timeout 60 $L ";
  shell(
      "mkfifo a-labels.pipe p.safetensors p.png hosts; $L fit job.yaml --set instance_count=1 --output run");
  expect(66,
         "mkdir q; cp a-images* q; mkfifo q/a-labels-idx1-ubyte; " + timed +
             "check job.yaml --set inputs.training.path=q/a-images-idx3-ubyte",
         {"q/a-labels-idx1-ubyte"});
  expect(66, timed + "predict run p.png", {"p.png", "a pipe"});
  expect(66, timed + "fit job.yaml --set instance_count=1 --output new --set model.init_from=p.safetensors",
         {"p.safetensors"});
  // A run of before there was a model.json.
  expect(66, "mkdir r; cp run/model.safetensors r; mkfifo r/job.yaml; " + timed + "evaluate r",
         {"r/job.yaml"});
  expect(66, "mkdir s; mkfifo s/config.json; " + timed + "sample s", {"s"});
  expect(66, timed + "predict run /dev/null", {"/dev/null"});
  expect(66, timed + "predict run run", {"run", "a folder"});
}

TEST_F(Surroundings, NamesOfAnyBytesAreJsonAllTheSame) {
  fs::create_directories(folder_.file("data/cat"));
  fs::create_directories(folder_.file("data/d\xf6g"));
  const Ended e = shell(R"(python3 - <<'END'
import struct, zlib
def png(value):
    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
    rows = b''.join(b'\0' + bytes([value] * 4) for _ in range(4))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 4, 4, 8, 0, 0, 0, 0)) +
            chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
for i in range(2):
    open(b'data/cat/%d.png' % i, 'wb').write(png(10))
    open(b'data/d\xf6g/%d.png' % i, 'wb').write(png(240))
open(b'caf\xe9.png', 'wb').write(png(12))
END
sed -i 's/dataset: idx.*}}/dataset: image_folder, path: data}}/; s/global_batch_size: 4/global_batch_size: 2/' job.yaml
$L fit job.yaml --output run)");
  ASSERT_EQ(e.code, 0) << e.output;
  const Ended predicted = shell("$L predict run caf*.png --json");
  ASSERT_EQ(predicted.code, 0) << predicted.output;
  const auto json = nlohmann::json::parse(predicted.output);  // throws for what is no UTF-8
  EXPECT_EQ(json.at("file"), "caf\xef\xbf\xbd.png");
  EXPECT_TRUE(json.at("probabilities").contains("d\xef\xbf\xbdg")) << predicted.output;
  expect(0,
         "for f in run/*.json run/*.jsonl run/job.yaml run/checkpoints/*/*.json; do iconv -f utf8 -t utf8 $f "
         "> out || exit 1; done",
         {});
  expect(0, "$L evaluate run --split training --json | iconv -f utf8 -t utf8", {"accuracy"});
  expect(0, "$L plan job.yaml --json | iconv -f utf8 -t utf8 > out", {});
}

}  // namespace
}  // namespace lockstep::testing::environment_test
