// SPDX-License-Identifier: Apache-2.0
// The real program on a small job and small data, in a folder of the test's own.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {

struct Outcome {
  int code = -1;
  std::string text;  // standard output and error together
};

inline std::string big_endian(uint32_t x) {
  return {static_cast<char>(x >> 24), static_cast<char>(x >> 16), static_cast<char>(x >> 8),
          static_cast<char>(x)};
}

inline constexpr uint32_t kCount = 48, kSide = 8;

class SmallRun : public ::testing::Test {
 protected:
  // MNIST's files, small: 48 images of 8x8, for training and test alike.
  void SetUp() override {
    write_set("");
    write_job(kLayers);
  }

  // In a folder of the test's; another `step` makes other pixels.
  void write_set(const std::string& folder, uint32_t step = 37) const {
    for (const std::string prefix : {"train", "t10k"}) {
      std::string images = big_endian(0x803) + big_endian(kCount) + big_endian(kSide) + big_endian(kSide);
      std::string labels = big_endian(0x801) + big_endian(kCount);
      for (uint32_t i = 0; i < kCount; ++i) {
        for (uint32_t k = 0; k < kSide * kSide; ++k) images += static_cast<char>(i * step + k * 11);
        labels += static_cast<char>(i % 10);
      }
      write_file(folder_.file(folder + prefix + "-images-idx3-ubyte"), images);
      write_file(folder_.file(folder + prefix + "-labels-idx1-ubyte"), labels);
    }
  }

  static constexpr const char* kLayers =
      "[{conv2d: {out_channels: 4, kernel: 3, name: first}}, relu, flatten, {linear: {out_features: 10, "
      "name: last}}]";

  void write_job(const std::string& layers, const std::string& more = "") {
    write_file(folder_.file("job.yaml"),
               "job_name: test\nmodel:\n  layers: " + layers +
                   "\ninputs: {training: {dataset: mnist, path: .}}\n"
                   "hyperparameters: {steps: 4, global_batch_size: 12, optimizer: {name: sgd, "
                   "lr: 0.01}}\ncheckpoint: {every_steps: 2}\n" +
                   more);
  }

  // The caches are the test's own; what a launcher around the test says is not for it.
  Outcome shell(const std::string& command) const {
    const std::string line = fmt::format(
        "cd '{}' && exec env -u OMPI_COMM_WORLD_RANK -u OMPI_COMM_WORLD_SIZE XDG_CACHE_HOME='{}' "
        "timeout -k 5 300 {} 2>&1",
        folder_.path(), folder_.file("cache"), command);
    Outcome o;
    FILE* pipe = ::popen(line.c_str(), "r");
    std::array<char, 4096> buffer{};
    while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe))
      o.text.append(buffer.data(), n);
    const int status = ::pclose(pipe);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return o;
  }
  Outcome lockstep(const std::string& arguments) const { return shell(LOCKSTEP_BINARY " " + arguments); }
  // By shared memory: Open MPI 5 remarks on networks that it cannot use.
  static std::string mpirun(int ranks) {
    return fmt::format("mpirun --allow-run-as-root --oversubscribe --mca btl self,vader -n {} ", ranks);
  }

  template <class... Words>
  void expect(const Outcome& o, Exit exit, const Words&... words) const {
    EXPECT_EQ(o.code, static_cast<int>(exit)) << o.text;
    for (const std::string& word : std::initializer_list<std::string>{words...})
      EXPECT_NE(o.text.find(word), std::string::npos) << "no \"" << word << "\" in: " << o.text;
    EXPECT_EQ(o.text.find("E_INTERNAL"), std::string::npos) << o.text;
  }

  TestFolder folder_;
};

}  // namespace lockstep::testing
