// SPDX-License-Identifier: Apache-2.0
// Data and weights as people have them, by the program: what it trains on and starts from.
#include <bit>
#include <cstring>
#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "tests/distributed/colours.h"
#include "tests/distributed/fit.h"
#include "tests/support/gzip.h"
#include "tests/support/idx.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::found_files_test {
namespace {

namespace fs = std::filesystem;

// Labels are the training set's, and grey pictures become the model's colours.
TEST(FoundFiles, ATestHalfOfFewerClassesAndOfGrey) {
  const TestFolder folder;
  write_colours(folder.file("data"), {"black", "blue", "green", "white"});
  fs::remove_all(folder.file("data/test/blue"));
  fs::remove_all(folder.file("data/test/green"));
  for (const auto& [name, value] : {std::pair{"black", 0}, {"white", 255}})
    for (const char* half : {"train", "test"})
      for (int i = 0; i < 2; ++i)
        write_png(fmt::format("{}/data/{}/{}/{}.png", folder.path(), half, name, i),
                  {1, 4, 4, std::vector<uint8_t>(16, static_cast<uint8_t>(value))});
  write_file(folder.file("job.yaml"), R"(job_name: found
device: cpu
threads_per_rank: 1
model: {layers: [flatten, {linear: {out_features: 4}}]}
inputs:
  training: {dataset: image_folder, path: data}
  test: {dataset: image_folder, path: data}
hyperparameters: {epochs: 60, global_batch_size: 8, optimizer: {name: adam, lr: 0.05}, seed: 1}
)");
  ASSERT_TRUE(fit(folder.file("job.yaml"), folder.file("run"), {}));
  EXPECT_EQ(test_line(folder.file("run")).at("accuracy"), 1.0);
}

class FoundWeights : public ::testing::Test {
 protected:
  FoundWeights() {
    std::vector<GreyImage> set;
    for (int i = 0; i < 40; ++i) set.push_back({static_cast<uint8_t>(6 * i), static_cast<uint8_t>(i % 2)});
    write_idx(folder_.file("a"), 4, set);
    write_file(folder_.file("job.yaml"), R"(job_name: found
device: cpu
threads_per_rank: 1
model: {layers: [{conv2d: {out_channels: 2, kernel: 3}}, batch_norm2d, flatten, {linear: {out_features: 2}}]}
inputs:
  training: {dataset: idx, path: a-images-idx3-ubyte}
  test: {dataset: idx, path: a-images-idx3-ubyte}
hyperparameters: {steps: 1, global_batch_size: 16, optimizer: {name: sgd, lr: 0}}
)");
    // Eighths, which F16 and BF16 hold exactly.
    for (const auto& [name, shape] :
         std::vector<std::pair<std::string, std::vector<int64_t>>>{{"0.weight", {2, 1, 3, 3}},
                                                                   {"0.bias", {2}},
                                                                   {"1.weight", {2}},
                                                                   {"1.bias", {2}},
                                                                   {"1.running_mean", {2}},
                                                                   {"1.running_var", {2}},
                                                                   {"3.weight", {2, 8}},
                                                                   {"3.bias", {2}}}) {
      int64_t count = 1;
      for (int64_t d : shape) count *= d;
      std::vector<float> values;
      for (int64_t i = 0; i < count; ++i)
        values.push_back(0.125f *
                         static_cast<float>((i * 5 + static_cast<int64_t>(tensors_.size())) % 8 + 1));
      values_.push_back(values);
      tensors_.push_back({name, "F32", shape, {}});
    }
  }
  // Every number of `values_` as T makes it.
  template <class T, class Convert>
  void write(const std::string& name, const std::string& dtype, const std::string& prefix, Convert convert,
             bool counts_batches = true) {
    std::vector<std::vector<T>> numbers;
    for (const auto& of_tensor : values_) {
      numbers.emplace_back();
      for (float v : of_tensor) numbers.back().push_back(convert(v));
    }
    std::vector<StoredTensor> all = tensors_;
    for (size_t i = 0; i < all.size(); ++i)
      all[i].name = prefix + all[i].name, all[i].dtype = dtype,
      all[i].bytes = std::as_bytes(std::span(numbers[i]));
    const int64_t batches = 3;
    if (counts_batches)
      all.push_back({prefix + "1.num_batches_tracked", "I64", {}, std::as_bytes(std::span(&batches, 1))});
    write_safetensors(folder_.file(name), all, {});
  }
  double test_loss(const std::string& weights) {
    const std::string run = folder_.file("run-" + weights);
    EXPECT_TRUE(fit(folder_.file("job.yaml"), run, {"model.init_from=" + folder_.file(weights)}));
    return test_line(run).at("loss");
  }
  TestFolder folder_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::vector<float>> values_;
};

TEST_F(FoundWeights, GiveTheSameLossInAnyForm) {
  const auto same = [](float v) { return v; };
  write<float>("base", "F32", "", same);
  write<float>("uncounted", "F32", "", same, false);
  write<float>("wrapped", "F32", "module._orig_mod.", same);
  write<double>("f64", "F64", "", [](float v) { return double{v}; });
  write<uint16_t>("bf16", "BF16", "",
                  [](float v) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16); });
  // Of normal numbers: the exponent's bias is 15, and ten bits of the fraction are left.
  write<uint16_t>("f16", "F16", "", [](float v) {
    const auto bits = std::bit_cast<uint32_t>(v);
    return static_cast<uint16_t>(((bits >> 23) - 127 + 15) << 10 | (bits >> 13 & 0x3ff));
  });
  const double expected = test_loss("base");
  for (const char* form : {"uncounted", "wrapped", "f64", "bf16", "f16"})
    EXPECT_EQ(test_loss(form), expected) << form;
  values_[6][0] += 0.125f;  // and another number is another loss
  write<float>("other", "F32", "", same);
  EXPECT_NE(test_loss("other"), expected);
}

// A set whose files are gzip of several members, as parallel compressors and `cat` write them.
TEST_F(FoundWeights, DataOfSeveralGzipMembersAreTheSame) {
  write<float>("base", "F32", "", [](float v) { return v; });
  const double expected = test_loss("base");
  for (const char* name : {"a-images-idx3-ubyte", "a-labels-idx1-ubyte"}) {
    const std::string path = folder_.file(name), bytes = read_file(path);
    write_file(path, gzip(bytes.substr(0, 30)) + gzip("") + gzip(bytes.substr(30)));
  }
  fs::remove_all(folder_.file("run-base"));
  EXPECT_EQ(test_loss("base"), expected);
}

}  // namespace
}  // namespace lockstep::testing::found_files_test
