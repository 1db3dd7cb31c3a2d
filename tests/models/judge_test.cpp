// SPDX-License-Identifier: Apache-2.0
// What a classifier reads: classes, and the input of its last linear layer.
#include "models/diffusion/judge.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "models/model.h"

namespace lockstep::testing::judge_test {
namespace {

using namespace lockstep::diffusion;

constexpr int64_t kCount = 131, kChannels = 2, kSide = 6,
                  kClasses = 5;  // more than one batch, the last an odd one
constexpr int64_t kBytes = kChannels * kSide * kSide;
const std::vector<float> kMean = {0.2f, 0.6f}, kStd = {0.5f, 0.25f};

LayerSpec conv(int64_t channels) {
  layer::Conv2d c;
  c.out_channels = channels;
  c.kernel = {3, 3};
  return named("conv2d", c);
}
LayerSpec linear(int64_t features, std::string name) {
  layer::Linear l;
  l.out_features = features;
  return named("linear", l, std::move(name));
}
LayerSpec relu() { return named("relu", layer::Activation{"relu"}); }
LayerSpec flatten() { return named("flatten", layer::Flatten{}); }
LayerSpec mean() { return named("adaptive_avg_pool2d", layer::AdaptiveAvgPool2d{{1, 1}}); }
LayerSpec dropout() { return named("dropout", layer::Dropout{}); }

class Classifier {
 public:
  explicit Classifier(std::vector<LayerSpec> layers, const std::string& precision = "fp32")
      : comm_(make_self_communicator()) {
    ModelSpec spec;
    spec.layers = std::move(layers);
    SessionOptions o;
    o.config.precision = precision;
    ModelDescription d;
    d.model = spec;
    d.input = {kChannels, kSide, kSide, kClasses, kMean, kStd};
    o.objective = make_objective(spec, d.input, o.config);
    o.kernels.threads = 1;
    o.training = false;
    session_ = std::make_unique<Session>(std::move(o), *comm_);
    session_->model().initialise(5);
    session_->executor().upload_model();
    asked_ = std::make_unique<InferenceSession>(*session_, d, 32);
  }
  Session& session() { return *session_; }
  InferenceSession& asked() { return *asked_; }

 private:
  std::unique_ptr<Communicator> comm_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<InferenceSession> asked_;
};

std::vector<uint8_t> pixels(int64_t count, uint32_t seed) {
  std::vector<uint8_t> p(static_cast<size_t>(count * kBytes));
  for (uint8_t& x : p) x = static_cast<uint8_t>((seed = seed * 1664525 + 1013904223) >> 24);
  return p;
}

float normalised(const std::vector<uint8_t>& p, int64_t image, int64_t element) {
  const auto channel = static_cast<size_t>(element / (kSide * kSide));
  return (static_cast<float>(p[static_cast<size_t>(image * kBytes + element)]) / 255 - kMean[channel]) /
         kStd[channel];
}

TEST(ReadImages, NormalisesAsTheClassifiersOwnData) {
  Classifier c({flatten(), linear(kClasses, "fc")});
  const auto p = pixels(kCount, 1);
  const Reading r = read_images(c.asked(), p);
  ASSERT_EQ(r.width, kBytes);
  for (int64_t i = 0; i < kCount; ++i)
    for (int64_t e = 0; e < kBytes; ++e)
      ASSERT_NEAR(r.features[static_cast<size_t>(i * kBytes + e)], normalised(p, i, e), 1e-5)
          << i << " " << e;
}

// Whatever the layer before: its features times the last layer's weights give the classes.
TEST(ReadImages, GivesWhatTheLastLinearLayerReads) {
  const std::vector<std::pair<int64_t, std::vector<LayerSpec>>> nets = {
      {7, {conv(4), relu(), flatten(), linear(7, "hidden"), relu(), dropout(), linear(kClasses, "fc")}},
      {20, {conv(20), mean(), flatten(), linear(kClasses, "fc"), named("log_softmax", layer::LogSoftmax{})}},
      {64, {conv(4), relu(), flatten(), linear(kClasses, "fc")}}};
  for (const auto& [width, layers] : nets)
    for (const char* precision : {"fp32", "bf16"}) {
      Classifier c(layers, precision);
      const Reading r = read_images(c.asked(), pixels(kCount, 2));
      ASSERT_EQ(r.width, width);
      ASSERT_EQ(r.classes.size(), static_cast<size_t>(kCount));
      const auto weight = c.session().model().parameter("fc.weight"),
                 bias = c.session().model().parameter("fc.bias");
      int64_t differ = 0;
      for (int64_t i = 0; i < kCount; ++i) {
        std::vector<double> score(kClasses);
        for (int64_t k = 0; k < kClasses; ++k) {
          score[static_cast<size_t>(k)] = double{bias[static_cast<size_t>(k)]};
          for (int64_t f = 0; f < width; ++f)
            score[static_cast<size_t>(k)] += double{weight[static_cast<size_t>(k * width + f)]} *
                                             double{r.features[static_cast<size_t>(i * width + f)]};
        }
        differ +=
            std::max_element(score.begin(), score.end()) - score.begin() != r.classes[static_cast<size_t>(i)];
      }
      // In bf16 the product is rounded to eight bits, which near ties does not survive.
      EXPECT_LE(differ, std::string(precision) == "bf16" ? kCount / 20 : 0) << width << " " << precision;
    }
}

TEST(ReadImages, RefusesANetWithoutALinearLayer) {
  Classifier c({conv(kClasses), mean(), flatten()});
  try {
    read_images(c.asked(), pixels(3, 1));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), 78);
    EXPECT_EQ(e.id(), "E_JUDGE_FEATURES");
  }
}

TEST(Judge, MeasuresSamplesBesideTrainingImages) {
  Classifier c({conv(4), relu(), flatten(), linear(7, "hidden"), relu(), linear(kClasses, "fc")});
  const auto reference = pixels(kCount, 3), training = pixels(kCount, 4);
  auto dark = training;
  for (uint8_t& x : dark) x /= 4;
  const Judge judge(c.asked(), training, reference);
  const Reading read = read_images(c.asked(), training);

  const Verdict as_training = judge(training, read.classes);
  EXPECT_EQ(as_training.accuracy, 1.0);
  EXPECT_EQ(as_training.distance, as_training.training_distance);
  EXPECT_EQ(as_training.ratio(), 1);
  EXPECT_GT(as_training.training_distance, 0);

  auto labels = read.classes;
  labels[0] = (labels[0] + 1) % kClasses;
  EXPECT_DOUBLE_EQ(*judge(training, labels).accuracy, (kCount - 1.0) / kCount);

  EXPECT_NEAR(judge(reference, {}).distance, 0, 1e-6);  // a root of rounding
  EXPECT_FALSE(judge(reference, {}).accuracy);
  EXPECT_GT(judge(dark, {}).ratio(), 10);
}

}  // namespace
}  // namespace lockstep::testing::judge_test
