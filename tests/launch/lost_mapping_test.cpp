// SPDX-License-Identifier: Apache-2.0
// The cache of a decoded set is mapped: a run under which it is cut ends as after any failed read.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/launch/small_run.h"
#include "tests/support/process.h"

namespace lockstep::testing {
namespace {
namespace fs = std::filesystem;

class LostMappingTest : public SmallRun {};

TEST_F(LostMappingTest, OfTheDataSetEndsTheRunWithItsName) {
  constexpr uint32_t kImages = 20'000;  // 1.28 MB of pixels: what is smaller is not kept
  write_file(folder_.file("train-images-idx3-ubyte"), big_endian(0x803) + big_endian(kImages) +
                                                          big_endian(kSide) + big_endian(kSide) +
                                                          std::string(size_t{kImages} * kSide * kSide, 'p'));
  write_file(folder_.file("train-labels-idx1-ubyte"),
             big_endian(0x801) + big_endian(kImages) + std::string(kImages, '\1'));
  std::this_thread::sleep_for(std::chrono::milliseconds(150));  // younger ones are not kept
  ASSERT_EQ(lockstep("fit job.yaml --output first").code, 0);
  std::string cache;
  for (const auto& entry : fs::directory_iterator(folder_.file("cache/lockstep")))
    if (entry.path().extension() == ".images") cache = entry.path();
  ASSERT_NE(cache, "");

  Process run(
      {"sh", "-c",
       "cd '" + folder_.path() +
           "' && exec " LOCKSTEP_BINARY " fit job.yaml --output run --set hyperparameters.steps=100000000 "
           "--set checkpoint.every_steps=100000000"},
      {{"XDG_CACHE_HOME", folder_.file("cache")}});
  const auto begun = [&] {
    return fs::exists(folder_.file("run/metrics.jsonl")) &&
           fs::file_size(folder_.file("run/metrics.jsonl")) > 0;
  };
  ASSERT_TRUE(eventually(begun)) << run.output();
  fs::resize_file(cache, 4096);
  EXPECT_EQ(run.wait(), static_cast<int>(Exit::io)) << run.output();
  EXPECT_NE(run.output().find("error[E_IO] file=" + cache), std::string::npos) << run.output();
  const auto status = nlohmann::json::parse(read_file(folder_.file("run/status.json")));
  EXPECT_EQ(status.at("state"), "failed");
  EXPECT_EQ(status.at("code"), 74);
}

}  // namespace
}  // namespace lockstep::testing
