// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/cifar10.h"

#include <algorithm>
#include <filesystem>

#include "runtime/data/input_file.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRecords = 10000, kPixels = 3 * 32 * 32, kRecord = 1 + kPixels;
constexpr int64_t kClasses = 10;

void expect_size(const InputFile& file) {
  if (file.at_most_left() < kRecords * kRecord)
    throw Error(Exit::data, "E_DATA_TRUNCATED",
                fmt::format("expected {} records of {} bytes, {} bytes, found {} at most", kRecords, kRecord,
                            kRecords * kRecord, file.at_most_left()))
        .at("file", file.path())
        .at("offset", 0);
}

}  // namespace

std::vector<std::string> find_cifar10(const std::string& folder, bool test) {
  std::vector<std::string> names;
  if (test)
    names = {"test_batch.bin"};
  else
    for (int i = 1; i <= 5; ++i) names.push_back(fmt::format("data_batch_{}.bin", i));
  fs::path base = folder;
  if (is_folder((base / "cifar-10-batches-bin").string())) base /= "cifar-10-batches-bin";
  std::vector<std::string> files;
  for (const std::string& name : names) {
    files.push_back((base / name).string());
    if (!is_file(files.back()))
      throw Error(Exit::no_input, "E_DATA_MISSING", "there is no such file")
          .at("file", files.back())
          .hint(fmt::format("lockstep data get cifar10 --to {}", folder));
  }
  return files;
}

void check_cifar10_sizes(const std::vector<std::string>& files) {
  for (const std::string& path : files) InputFile(path).expect_left(kRecords * kRecord);
}

ImageSet read_cifar10(const std::vector<std::string>& files) {
  ImageSet set;
  set.channels = 3;
  set.height = set.width = 32;
  set.classes = kClasses;
  set.pixels.resize(files.size() * static_cast<size_t>(kRecords * kPixels));
  uint8_t* to = set.pixels.data();
  std::vector<uint8_t> records(static_cast<size_t>(kRecords * kRecord));
  for (const std::string& path : files) {
    InputFile file(path);
    expect_size(file);
    file.read(records.data(), kRecords * kRecord);
    file.expect_end();
    for (int64_t i = 0; i < kRecords; ++i, to += kPixels) {
      const uint8_t* record = records.data() + i * kRecord;
      if (record[0] >= kClasses)
        throw Error(Exit::data, "E_LABEL_RANGE",
                    fmt::format("expected a label of 0 to {}, found {}", kClasses - 1, record[0]))
            .at("file", path)
            .at("offset", i * kRecord);
      set.labels.push_back(record[0]);
      std::copy_n(record + 1, kPixels, to);
    }
  }
  return set;
}

DatasetShape probe_cifar10(const std::vector<std::string>& files) {
  for (const std::string& path : files) expect_size(InputFile(path));
  return {static_cast<int64_t>(files.size()) * kRecords, 3, 32, 32, kClasses, {}, {}};
}

}  // namespace lockstep
