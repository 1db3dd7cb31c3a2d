// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/support/files.h"
#include "tests/support/sample_checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace fs = std::filesystem;
namespace {

std::vector<std::string> names(const std::vector<std::string>& folders) {
  std::vector<std::string> out;
  for (const std::string& f : folders) out.push_back(fs::path(f).filename());
  return out;
}
using Names = std::vector<std::string>;

void expect_same(std::span<const StoredTensor> expected, const SafetensorsFile& file) {
  ASSERT_EQ(file.tensors().size(), expected.size());
  for (const StoredTensor& t : expected) {
    const StoredTensor* found = file.find(t.name);
    ASSERT_NE(found, nullptr) << t.name;
    EXPECT_EQ(found->dtype, t.dtype);
    EXPECT_EQ(found->shape, t.shape);
    EXPECT_TRUE(std::ranges::equal(found->bytes, t.bytes)) << t.name;
  }
}

TEST(Checkpoint, ReadsBackWhatWasWritten) {
  const TestFolder run;
  const SampleCheckpoint sample(420);
  const std::string folder = write_checkpoint(run.path(), sample.contents(), 2, "");
  EXPECT_EQ(folder, run.file("checkpoints/step-00000420"));
  const LoadedCheckpoint loaded = load_checkpoint(folder);
  EXPECT_EQ(loaded.folder, folder);
  EXPECT_EQ(loaded.meta, sample.contents().meta);
  expect_same(sample.contents().model, *loaded.model);
  expect_same(sample.contents().state, *loaded.state);
  EXPECT_EQ(loaded.model->metadata().at("format"), "pt");
}

TEST(Checkpoint, EveryFlippedBitIsFound) {
  const TestFolder run;
  const std::string folder = write_checkpoint(run.path(), SampleCheckpoint(1).contents(), 0, "");
  int64_t flips = 0;
  for (const char* name : {"model.safetensors", "state.safetensors", "meta.json", "manifest.json"}) {
    const std::string path = folder + "/" + name, whole = read_file(path);
    for (size_t bit = 0; bit < whole.size() * 8; ++bit, ++flips) {
      const auto put = [&](char c) { overwrite_byte(path, bit / 8, c); };
      put(static_cast<char>(whole[bit / 8] ^ (1 << (bit % 8))));
      const auto error = error_of([&] { load_checkpoint(folder); });
      ASSERT_TRUE(error && error->exit() == Exit::data)
          << name << " bit " << bit << (error ? error->what() : ": none");
      put(whole[bit / 8]);
    }
  }
  EXPECT_GT(flips, 10'000);
  load_checkpoint(folder);
}

TEST(Checkpoint, EveryTruncationAndExtensionIsFound) {
  const TestFolder run;
  const std::string folder = write_checkpoint(run.path(), SampleCheckpoint(1).contents(), 0, "");
  for (const char* name : {"model.safetensors", "state.safetensors", "meta.json", "manifest.json"}) {
    const std::string path = folder + "/" + name, whole = read_file(path);
    for (size_t size = 0; size < whole.size(); ++size) {
      write_file(path, whole.substr(0, size));
      const auto error = error_of([&] { load_checkpoint(folder); });
      ASSERT_TRUE(error && error->exit() == Exit::data) << name << " cut to " << size;
    }
    for (const char* more : {" ", "\n", "}"}) {
      write_file(path, whole + more);
      expect_error(
          Exit::data, [&] { load_checkpoint(folder); }, name);
    }
    fs::remove(path);
    expect_error(
        Exit::data, [&] { load_checkpoint(folder); }, name);
    write_file(path, whole);
  }
  load_checkpoint(folder);
}

TEST(Checkpoint, DamageNamesTensorExpectedAndFound) {
  const TestFolder run;
  const std::string folder = write_checkpoint(run.path(), SampleCheckpoint(1).contents(), 0, "");
  const std::string path = folder + "/model.safetensors";
  std::string bytes = read_file(path);
  bytes.back() = static_cast<char>(~bytes.back());
  write_file(path, bytes);
  const auto file = SafetensorsFile::open(path);
  const StoredTensor& last = file->tensors().back();
  expect_error(
      Exit::data, [&] { load_checkpoint(folder); }, "E_CKPT_HASH", path, "tensor=" + last.name, "expected",
      "found " + sha256_hex(last.bytes));
}

TEST(Checkpoint, NewestGoodOneIsFoundWithAWarning) {
  const TestFolder run;
  EXPECT_FALSE(load_newest_checkpoint(run.path(), {}));
  for (int step : {10, 20, 30}) write_checkpoint(run.path(), SampleCheckpoint(step).contents(), 0, "");
  fs::resize_file(run.file("checkpoints/step-00000030/state.safetensors"), 20);
  std::vector<std::string> warnings;
  const auto warn = [&](const std::string& text) { warnings.push_back(text); };
  EXPECT_EQ(load_newest_checkpoint(run.path(), warn)->meta.at("step"), 20);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("step-00000030/state.safetensors"), std::string::npos) << warnings[0];
  for (int step : {10, 20})
    fs::remove(run.file("checkpoints/step-000000" + std::to_string(step) + "/meta.json"));
  expect_error(
      Exit::data, [&] { load_newest_checkpoint(run.path(), warn); }, "step-00000030");
}

TEST(Checkpoint, KeepsTheNewestAndTheProtected) {
  const TestFolder run;
  std::string best;
  for (int step = 1; step <= 5; ++step) {
    const std::string folder = write_checkpoint(run.path(), SampleCheckpoint(step).contents(), 2, best);
    if (step == 2) best = folder;
  }
  EXPECT_EQ(names(list_checkpoints(run.path())), (Names{"step-00000002", "step-00000004", "step-00000005"}));
  write_checkpoint(run.path(), SampleCheckpoint(6).contents(), 1, "");
  EXPECT_EQ(names(list_checkpoints(run.path())), (Names{"step-00000006"}));
  for (int step : {7, 8}) write_checkpoint(run.path(), SampleCheckpoint(step).contents(), 0, "");
  EXPECT_EQ(list_checkpoints(run.path()).size(), 3u);
}

// Resumed from before a damaged one, a run writes lower numbers: they must not be pruned in its favour.
TEST(Checkpoint, PruningSparesTheOneJustWritten) {
  const TestFolder run;
  for (int step : {10, 500}) write_checkpoint(run.path(), SampleCheckpoint(step).contents(), 0, "");
  fs::resize_file(run.file("checkpoints/step-00000500/meta.json"), 1);
  write_checkpoint(run.path(), SampleCheckpoint(20).contents(), 1, "");
  EXPECT_EQ(load_newest_checkpoint(run.path(), {})->meta.at("step"), 20);
  write_checkpoint(run.path(), SampleCheckpoint(500).contents(), 1, "");  // replaces the damaged one
  EXPECT_EQ(names(list_checkpoints(run.path())), (Names{"step-00000500"}));
  load_checkpoint(list_checkpoints(run.path()).front());
}

TEST(Checkpoint, ListsByStepAndOnlyCheckpoints) {
  const TestFolder run;
  EXPECT_TRUE(list_checkpoints(run.path()).empty());
  for (int64_t step : {100'000'000, 99'999'999})
    write_checkpoint(run.path(), SampleCheckpoint(step).contents(), 0, "");
  fs::create_directory(run.file("checkpoints/step-x"));
  fs::create_directory(run.file("checkpoints/other"));
  write_file(run.file("checkpoints/step-00000003"), "a file");
  EXPECT_EQ(names(list_checkpoints(run.path())), (Names{"step-99999999", "step-100000000"}));
}

TEST(OpenModel, TakesFileCheckpointOrRun) {
  const TestFolder run;
  const SampleCheckpoint sample(3);
  const std::string folder = write_checkpoint(run.path(), sample.contents(), 0, "");
  expect_same(sample.contents().model, *open_model(folder + "/model.safetensors"));
  expect_same(sample.contents().model, *open_model(folder));
  EXPECT_EQ(open_model(run.path())->path(), folder + "/model.safetensors");
  export_model(run.path() + "/model.safetensors", sample.contents().model);
  EXPECT_EQ(open_model(run.path())->path(), run.file("model.safetensors"));
  expect_error(
      Exit::no_input, [&] { open_model(run.file("nothing")); }, run.file("nothing"));
  const TestFolder empty;
  expect_error(
      Exit::no_input, [&] { open_model(empty.path()); }, empty.path());
  fs::remove(folder + "/manifest.json");
  expect_error(
      Exit::data, [&] { open_model(folder); }, "manifest.json");
}

TEST(WriteFileAtomically, ReplacesAndLeavesNothingBehind) {
  const TestFolder folder;
  for (const char* text : {"first", "", "third"}) {
    write_file_atomically(folder.file("f"), text);
    EXPECT_EQ(read_file(folder.file("f")), text);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
  fs::create_directory(folder.file("d"));
  expect_error(
      Exit::cannot_create, [&] { write_file_atomically(folder.file("d"), "x"); }, folder.file("d"));
  expect_error(Exit::cannot_create, [&] { write_file_atomically(folder.file("no/f"), "x"); });
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
}

}  // namespace
}  // namespace lockstep::testing
