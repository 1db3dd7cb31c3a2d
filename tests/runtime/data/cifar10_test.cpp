// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "runtime/data/dataset.h"
#include "tests/support/files.h"
#include "tests/support/own_cache.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;

constexpr int64_t kRecord = 3073, kBytes = 10000 * kRecord;

class Cifar10 : public ::testing::Test {
 protected:
  DatasetConfig config(const std::string& split) const { return {"cifar10", folder.path(), split}; }
  // Sparse: zeros but for `byte` at `offset`.
  std::string put(const std::string& name, int64_t offset = 0, char byte = 0, int64_t size = kBytes) const {
    const std::string path = folder.file(name);
    testing::write_file(path, "");
    fs::resize_file(path, static_cast<uintmax_t>(size));
    testing::overwrite_byte(path, static_cast<size_t>(offset), byte);
    return path;
  }
  testing::TestFolder folder;
  testing::OwnCache cache;
};

TEST_F(Cifar10, TestBatch) {
  // Record 2: label 7; record 3, green plane, row 1, column 2.
  const std::string path = put("test_batch.bin", 2 * kRecord, 7);
  testing::overwrite_byte(path, 3 * kRecord + 1 + 1024 + 32 + 2, 99);
  const auto set = load_dataset(config("test"));
  EXPECT_EQ(set->count(), 10000);
  EXPECT_EQ(set->channels, 3);
  EXPECT_EQ(set->class_names[9], "truck");
  EXPECT_EQ(set->labels[2], 7);
  EXPECT_EQ(set->image(3)[1024 + 32 + 2], 99);
  EXPECT_EQ(probe_dataset(config("test")).height, 32);
}

TEST_F(Cifar10, TrainingBatchesInTheFolderOfTheArchive) {
  fs::create_directory(folder.file("cifar-10-batches-bin"));
  for (int i = 1; i <= 5; ++i)
    put(fmt::format("cifar-10-batches-bin/data_batch_{}.bin", i), 0, static_cast<char>(i));
  EXPECT_EQ(probe_dataset(config("training")).count, 50000);
  DatasetConfig c = config("training");
  c.limit = 40001;
  const auto set = load_dataset(c);
  EXPECT_EQ(set->labels[0], 1);
  EXPECT_EQ(set->labels[40000], 5);
}

TEST_F(Cifar10, Wrong) {
  const auto load = [&] { load_dataset(config("test")); };
  expect_error(Exit::no_input, load, "test_batch.bin", "lockstep data get cifar10 --to " + folder.path());
  std::string path = put("test_batch.bin", 0, 0, kBytes - 1);
  expect_error(Exit::data, load, path, std::to_string(kBytes), std::to_string(kBytes - 1));
  expect_error(
      Exit::data, [&] { probe_dataset(config("test")); }, path);
  put("test_batch.bin", 0, 0, kBytes + 1);
  expect_error(Exit::data, load, path, "expected the end", fmt::format("offset={}", kBytes));
  put("test_batch.bin", 5 * kRecord, 10);
  expect_error(Exit::data, load, path, fmt::format("offset={}", 5 * kRecord), "0 to 9", "found 10");
}

}  // namespace
}  // namespace lockstep
