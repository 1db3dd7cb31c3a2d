// SPDX-License-Identifier: Apache-2.0
// One model in each layout that people keep it in: the program draws the same images.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/safetensors.h"
#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {
namespace fs = std::filesystem;

const std::string kModel = LOCKSTEP_SOURCE_DIR "/tests/golden/diffusion/root_layout";
const std::string kWeights = "/diffusion_pytorch_model.safetensors";

class FolderLayouts : public ::testing::Test {
 protected:
  std::string make(const std::string& name, const std::string& unet, const std::string& scheduler) {
    const std::string folder = folder_.file(name);
    fs::create_directories(folder + unet);
    fs::create_directories(folder + scheduler);
    fs::copy_file(kModel + "/config.json", folder + unet + "/config.json");
    fs::copy_file(kModel + "/scheduler_config.json", folder + scheduler + "/scheduler_config.json");
    return folder;
  }
  Ended sample(const std::string& folder) {
    return run({LOCKSTEP_BINARY, "sample", folder, "--count", "2", "--steps", "5", "--out",
                folder_.file("grid.png"), "--raw", folder_.file("raw")},
               {{"XDG_CACHE_HOME", LOCKSTEP_BINARY_DIR "/tests/cache"}});
  }
  std::string images(const std::string& folder) {
    fs::remove(folder_.file("raw"));
    const Ended e = sample(folder);
    EXPECT_EQ(e.code, 0) << e.output;
    return e.code == 0 ? read_file(folder_.file("raw")) : "";
  }
  TestFolder folder_;
};

TEST_F(FolderLayouts, DrawTheSameImages) {
  const std::string expected = images(kModel);  // everything at the root

  const std::string parts = make("parts", "/unet", "/scheduler");
  fs::copy_file(kModel + kWeights, parts + "/unet" + kWeights);
  EXPECT_EQ(images(parts), expected);

  const std::string mixed = make("mixed", "/unet", "");
  fs::copy_file(kModel + kWeights, mixed + "/unet/diffusion_pytorch_model.fp32.safetensors");
  EXPECT_EQ(images(mixed), expected);

  const std::string sharded = make("sharded", "", "");
  const auto file = SafetensorsFile::open(kModel + kWeights);
  const size_t half = file->tensors().size() / 2;
  nlohmann::json map;
  for (size_t begin : {size_t{0}, half}) {
    const std::string name = begin == 0 ? "first.safetensors" : "second.safetensors";
    const auto some = begin == 0 ? file->tensors().first(half) : file->tensors().subspan(half);
    write_safetensors(sharded + "/" + name, some, {});
    for (const StoredTensor& t : some) map[t.name] = name;
  }
  write_file(sharded + kWeights + ".index.json", nlohmann::json{{"weight_map", map}}.dump());
  EXPECT_EQ(images(sharded), expected);
  fs::remove(sharded + "/second.safetensors");
  const Ended e = sample(sharded);
  EXPECT_EQ(e.code, 66);
  EXPECT_NE(e.output.find("second.safetensors"), std::string::npos) << e.output;
}

TEST_F(FolderLayouts, WhatIsMissingIsNamed) {
  fs::create_directories(folder_.file("empty"));
  Ended e = sample(folder_.file("empty"));
  EXPECT_EQ(e.code, 66);
  EXPECT_NE(e.output.find("neither weights"), std::string::npos) << e.output;
  fs::copy_file(kModel + kWeights, folder_.file("empty") + kWeights);
  e = sample(folder_.file("empty"));
  EXPECT_EQ(e.code, 66);
  EXPECT_NE(e.output.find("unet/config.json nor config.json"), std::string::npos) << e.output;
  fs::copy_file(kModel + "/config.json", folder_.file("empty/config.json"));
  e = sample(folder_.file("empty"));
  EXPECT_EQ(e.code, 66);
  EXPECT_NE(e.output.find("scheduler/scheduler_config.json nor scheduler_config.json"), std::string::npos)
      << e.output;
}

// A schedule that cannot be is said with its file, before memory is taken for it; what an option asks for with the folder.
TEST_F(FolderLayouts, SchedulesThatCannotBeAreNamed) {
  const std::string folder = make("model", "", ""), file = folder + "/scheduler_config.json";
  fs::copy_file(kModel + kWeights, folder + kWeights);
  const auto config = nlohmann::json::parse(read_file(file));
  const auto expect_said = [&](const Ended& e, const std::string& id, const std::string& place) {
    EXPECT_EQ(e.code, 78) << e.output;
    EXPECT_NE(e.output.find(id), std::string::npos) << e.output;
    EXPECT_NE(e.output.find(place), std::string::npos) << e.output;
  };
  for (const auto& [key, value] : {std::pair<std::string, nlohmann::json>{"num_train_timesteps", 1000000000},
                                   {"beta_schedule", "none"},
                                   {"beta_end", 2}}) {
    auto changed = config;
    changed[key] = value;
    write_file(file, changed.dump());
    expect_said(sample(folder), "E_NOISE_SCHEDULE", "file=" + file);
  }
  write_file(file, config.dump());
  const auto with = [&](const char* option, const char* value) {
    return run({LOCKSTEP_BINARY, "sample", folder, option, value, "--out", folder_.file("grid.png")}, {});
  };
  expect_said(with("--steps", "2000"), "E_SAMPLER", "folder=" + folder);
  for (const char* value : {"-1", "1e3"}) EXPECT_EQ(with("--seed", value).code, 64);
  EXPECT_EQ(with("--guidance", "nan").code, 64);
}

}  // namespace
}  // namespace lockstep::testing
