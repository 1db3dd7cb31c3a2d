// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/drawing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/diffusion/noise.h"

namespace lockstep::testing::drawing_test {
namespace {

using namespace lockstep::diffusion;

constexpr int64_t kElements = 12;

// A model of classes that treats each image by itself and notes how many it was given.
struct Model {
  std::vector<size_t> calls;
  Predict predict() {
    return [this](std::span<const float> x, std::span<const float> timesteps, std::span<const int32_t> labels,
                  std::span<float> output) {
      calls.push_back(x.size() / kElements);
      for (size_t i = 0; i < x.size(); ++i)
        output[i] = 0.5F * x[i] + 0.0001F * timesteps[i / kElements] +
                    (labels.empty() ? 0.0F : 0.1F * static_cast<float>(labels[i / kElements]));
    };
  }
};

DrawingRequest five_images() {
  return {.elements = kElements, .numbers = {0, 1, 2, 3, 4}, .labels = {0, 1, 2, 3, 4}, .seed = 7};
}

class SampleImages : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Sampler> sampler() const {
    SchedulerConfig config;
    config.skip_prk_steps = true;
    return make_sampler(GetParam(), config, 6, GetParam() == "ddim" ? 0.5 : 0);
  }
  std::vector<float> sample(const DrawingRequest& request, int64_t batch = 5) {
    return draw_images(
        request, batch, [this] { return sampler(); }, model.predict());
  }
  Model model;
};

TEST_P(SampleImages, AreTheSameInAnyBatchAndShare) {
  DrawingRequest r = five_images();
  const std::vector<float> together = sample(r);
  ASSERT_EQ(together.size(), 5U * kElements);
  EXPECT_EQ(sample(r, 2), together);
  EXPECT_EQ(model.calls[0], 5U);
  EXPECT_EQ(model.calls.back(), 1U);  // 2 + 2 + 1
  r = {.elements = kElements, .numbers = {3, 4}, .labels = {3, 4}, .seed = 7};
  EXPECT_EQ(sample(r, 2), std::vector<float>(together.begin() + 3 * kElements, together.end()));
  r.seed = 8;
  EXPECT_NE(sample(r), std::vector<float>(together.begin() + 3 * kElements, together.end()));
}

TEST_P(SampleImages, GivenNoiseStandsForTheSeeds) {
  DrawingRequest r = five_images();
  const std::vector<float> expected = sample(r);
  std::vector<float> noise(5 * kElements);
  draw_image_noise(r.seed, 0, std::vector<int64_t>{0, 1, 2, 3, 4}, noise);
  r.init_noise = noise;
  EXPECT_EQ(sample(r), expected);
  noise[0] += 1;
  EXPECT_NE(sample(r), expected);
}

TEST_P(SampleImages, GuidanceGoesFromTheNullLabelThroughTheLabel) {
  // The model is linear in the label: null + 2 (label - null) is what label 2 label - null would get.
  DrawingRequest r = five_images();
  r.guidance = 2;
  r.null_label = 1;
  const std::vector<float> guided = sample(r);
  for (const size_t n : model.calls) EXPECT_EQ(n, 10U);
  r.guidance = 1;
  r.labels = {-1, 1, 3, 5, 7};
  const std::vector<float> expected = sample(r);
  float greatest = 0, difference = 0;
  for (size_t i = 0; i < guided.size(); ++i) {
    greatest = std::max(greatest, std::abs(expected[i]));
    difference = std::max(difference, std::abs(guided[i] - expected[i]));
  }
  // Three float32 roundings more in each of six steps.
  EXPECT_LE(difference, 2e-6F * greatest);
}

// Drawings that began at different times, with guidance and without, in one evaluation a step.
TEST_P(SampleImages, ArriveAtDifferentTimesAndAreTheSame) {
  DrawingRequest early = five_images(), late = five_images();
  early.guidance = 3, early.null_label = 9;
  late.numbers = {7, 2}, late.labels = {4, 4}, late.seed = 1;
  const std::vector<float> expected_early = sample(early), expected_late = sample(late);
  Drawing first(sampler(), early), second(sampler(), late);
  Evaluation evaluate(model.predict());
  model.calls.clear();
  for (int i = 0; !second.done(); ++i) {
    std::vector<Drawing*> under_way;
    if (!first.done()) under_way.push_back(&first);
    if (i >= 2) under_way.push_back(&second);
    evaluate(under_way);
  }
  EXPECT_EQ(std::vector<float>(first.images().begin(), first.images().end()), expected_early);
  EXPECT_EQ(std::vector<float>(second.images().begin(), second.images().end()), expected_late);
  std::vector<size_t> expected{10, 10, 12, 12, 12, 12, 2, 2};
  if (GetParam() == "pndm") expected.insert(expected.begin() + 2, 12);  // seven evaluations
  EXPECT_EQ(model.calls, expected);
}

// A model that tells the noise exactly: at each step it takes the image without it for the one that it knows.
TEST_P(SampleImages, AreSeenWithoutTheirNoise) {
  SchedulerConfig config;
  config.skip_prk_steps = true;
  const std::vector<float> alphas = make_alphas_cumprod(config.schedule);
  const auto known = [](size_t i) { return 0.05F * static_cast<float>(i % 17) - 0.4F; };
  Evaluation evaluate([&](std::span<const float> x, std::span<const float> timesteps,
                          std::span<const int32_t>, std::span<float> output) {
    for (size_t i = 0; i < x.size(); ++i) {
      const double t = timesteps[i / kElements], share = t - std::floor(t);
      const auto below = static_cast<size_t>(t);
      const double a = (1 - share) * double{alphas[below]} +
                       share * double{alphas[std::min(below + 1, alphas.size() - 1)]};
      output[i] = static_cast<float>((double{x[i]} - std::sqrt(a) * known(i)) / std::sqrt(1 - a));
    }
  });
  Drawing drawing(sampler(), {.elements = kElements, .numbers = {0, 1, 2}, .seed = 7});
  Drawing* const one = &drawing;
  while (!drawing.done()) {
    evaluate(std::span(&one, 1));
    const std::vector<float> seen = drawing.estimate();
    // x and the output are float32 of some 4, rounded a few times, and divided by a signal of 0.006 at least (t = 999).
    for (size_t i = 0; i < seen.size(); ++i) ASSERT_NEAR(seen[i], known(i), 1e-3F) << drawing.step();
  }
}

INSTANTIATE_TEST_SUITE_P(Samplers, SampleImages,
                         ::testing::Values("ddpm", "ddim", "pndm", "dpm_solver", "euler", "euler_ancestral"),
                         [](const auto& param_info) { return param_info.param; });

TEST(SampleImagesProgress, CountsStepsOverAllBatches) {
  std::vector<std::pair<int64_t, int64_t>> told;
  Model model;
  draw_images(
      five_images(), 2, [] { return make_sampler("ddim", {}, 4); }, model.predict(),
      [&](int64_t done, int64_t total) { told.emplace_back(done, total); });
  ASSERT_EQ(told.size(), 13U);
  EXPECT_EQ(told.front(), (std::pair<int64_t, int64_t>(0, 12)));
  EXPECT_EQ(told.back(), (std::pair<int64_t, int64_t>(12, 12)));
}

TEST(DrawImageNoise, IsTheNoiseOpsByImageAndDraw) {
  std::vector<float> noise(3 * kElements), one(kElements);
  draw_image_noise(5, 2, std::vector<int64_t>{10, 3, 12}, noise);
  draw_noise(5, 2, 12, kElements, one.data());
  EXPECT_EQ(std::vector<float>(noise.end() - kElements, noise.end()), one);
}

}  // namespace
}  // namespace lockstep::testing::drawing_test
