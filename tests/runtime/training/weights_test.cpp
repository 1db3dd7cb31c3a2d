// SPDX-License-Identifier: Apache-2.0
// Weights as people bring them: other types, wrappers' names, no count of batches.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "runtime/training/state_io.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

using testing::expect_error;

// A parameter of four numbers and batch norm's statistics of two.
class Weights : public ::testing::Test {
 protected:
  Weights() {
    ParameterTable table;
    table.parameters = {{"conv.weight", {4}, {}, 16}};
    table.buffers = {{"bn.running_mean", {2}, {}, 0}, {"bn.running_var", {2}, {}, 16}};
    table.order = {"conv.weight", "bn.running_mean", "bn.running_var"};
    table.length = table.trained_length = 32, table.buffer_length = 32;
    comm_ = make_self_communicator();
    model_.emplace(std::move(table), ModelArrays{.gradients = false}, *comm_);
  }
  template <class T>
  void add(const std::string& name, const std::string& dtype, std::vector<T> values, bool scalar = false) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    bytes_.push_back(std::move(bytes));
    StoredTensor t{name, dtype, {static_cast<int64_t>(values.size())}, {}};
    if (scalar) t.shape.clear();
    tensors_.push_back(t);
  }
  void add_all(const std::string& prefix) {
    add<float>(prefix + "conv.weight", "F32", {1, 2, 3, 4});
    add<float>(prefix + "bn.running_mean", "F32", {5, 6});
    add<float>(prefix + "bn.running_var", "F32", {7, 8});
    add<int64_t>(prefix + "bn.num_batches_tracked", "I64", {9}, true);
  }
  std::shared_ptr<const SafetensorsFile> written() {
    for (size_t i = 0; i < tensors_.size(); ++i) tensors_[i].bytes = bytes_[i];
    const std::string path = folder_.file("w.safetensors");
    write_safetensors(path, tensors_, {});
    tensors_.clear(), bytes_.clear();
    return SafetensorsFile::open(path);
  }
  void load() {
    const auto file = written();
    load_model_tensors(*model_, *file, file->path());
  }
  std::vector<float> values(const std::string& name) {
    const auto all = name == "conv.weight" ? model_->parameter(name) : model_->buffer(name);
    return {all.begin(), all.end()};
  }
  std::unique_ptr<Communicator> comm_;
  std::optional<ModelState> model_;
  testing::TestFolder folder_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::vector<std::byte>> bytes_;
};
using Floats = std::vector<float>;

TEST_F(Weights, OfOtherTypesBecomeF32) {
  // IEEE 754 binary16: 1, -2, the least above zero, the greatest; bf16: 1, -3.
  add<uint16_t>("conv.weight", "F16", {0x3c00, 0xc000, 0x0001, 0x7bff});
  add<uint16_t>("bn.running_mean", "BF16", {0x3f80, 0xc040});
  add<double>("bn.running_var", "F64", {0.1, 1e300});
  load();
  EXPECT_EQ(values("conv.weight"), (Floats{1, -2, 0x1p-24F, 65504}));
  EXPECT_EQ(values("bn.running_mean"), (Floats{1, -3}));
  EXPECT_EQ(values("bn.running_var"), (Floats{0.1F, std::numeric_limits<float>::infinity()}));
  EXPECT_EQ(model_->batches_tracked, 0);

  add<uint16_t>("conv.weight", "F16", {0x8000, 0x7c00, 0xfc00, 0x03ff});
  add<float>("bn.running_mean", "F32", {0, 0});
  add<float>("bn.running_var", "F32", {0, 0});
  load();
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(values("conv.weight"), (Floats{0, infinity, -infinity, 1023 * 0x1p-24F}));
  EXPECT_TRUE(std::signbit(values("conv.weight")[0]));

  add<int32_t>("conv.weight", "I32", {1, 2, 3, 4});
  add<float>("bn.running_mean", "F32", {0, 0});
  add<float>("bn.running_var", "F32", {0, 0});
  expect_error(
      Exit::data, [&] { load(); }, "\"conv.weight\" is I32[4], expected F32[4]");
}

TEST_F(Weights, InPlaceTheyAreReadInTheirFile) {
  add_all("module.");
  const auto file = written();
  place_model_tensors(*model_, *file, file->path());
  const auto* in_file = reinterpret_cast<const float*>(file->find("module.conv.weight")->bytes.data());
  EXPECT_EQ(model_->at("conv.weight"), in_file);
  EXPECT_EQ(values("bn.running_var"), (Floats{7, 8}));
  EXPECT_EQ(model_->batches_tracked, 9);
  model_->release("conv.weight");
  EXPECT_EQ(Floats(in_file, in_file + 4), (Floats{1, 2, 3, 4}));
}

TEST_F(Weights, InPlaceThoseOfOtherTypesAreConverted) {
  add<uint16_t>("conv.weight", "F16", {0x3c00, 0xc000, 0x0001, 0x7bff});
  add<float>("bn.running_mean", "F32", {0, 0});
  add<float>("bn.running_var", "F32", {0, 0});
  const auto file = written();
  place_model_tensors(*model_, *file, file->path());
  EXPECT_EQ(model_->at("conv.weight"), model_->parameter("conv.weight").data());
  model_->release("conv.weight");  // nothing to give back
  EXPECT_EQ(values("conv.weight"), (Floats{1, -2, 0x1p-24F, 65504}));
}

TEST_F(Weights, UnderWrappersNames) {
  for (const std::string prefix :
       {"", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "ema_model."}) {
    model_->initialise(1);
    add_all(prefix);
    if (prefix == "ema_model.") {
      add_all("online_model.");
      add<uint8_t>("initted", "BOOL", {1}, true);
    }
    load();
    EXPECT_EQ(values("conv.weight"), (Floats{1, 2, 3, 4})) << prefix;
    EXPECT_EQ(values("bn.running_var"), (Floats{7, 8})) << prefix;
    EXPECT_EQ(model_->batches_tracked, 9) << prefix;
  }
}

TEST_F(Weights, WhatIsMissingOrSurplusIsNamed) {
  add_all("module.");
  add<float>("module.head.weight", "F32", {1});
  expect_error(
      Exit::data, [&] { load(); }, "surplus \"module.head.weight\"");
  tensors_.clear(), bytes_.clear();
  add_all("encoder.");  // no wrapper's name that we know
  expect_error(
      Exit::data, [&] { load(); }, "missing \"conv.weight\"", "surplus \"encoder.conv.weight\"");
  tensors_.clear(), bytes_.clear();
  add_all("");
  add_all("module.");  // which of them?
  expect_error(
      Exit::data, [&] { load(); }, "surplus \"module.conv.weight\"");
}

TEST(FiniteTensors, TheFirstThatIsNotFiniteIsFoundWhereverItLies) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> first(37, std::numeric_limits<float>::max()), second(1001, -1e-45F);
  const auto found = [&]() -> std::string {
    const std::vector<StoredTensor> tensors = {{"first", "F32", {37}, std::as_bytes(std::span(first))},
                                               {"second", "F32", {1001}, std::as_bytes(std::span(second))}};
    const StoredTensor* t = first_non_finite(tensors);
    return t ? t->name : "";
  };
  EXPECT_EQ(found(), "");
  for (const float bad : {infinity, -infinity, std::nanf("")})
    for (size_t at : {0, 1, 500, 999, 1000}) {
      const float good = std::exchange(second[at], bad);
      EXPECT_EQ(found(), "second") << at;
      second[at] = good;
    }
  first.back() = infinity, second[0] = infinity;
  EXPECT_EQ(found(), "first");
}

}  // namespace
}  // namespace lockstep
