// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/scene_judge.h"

#include <algorithm>
#include <array>
#include <functional>

#include "models/objectives/classification.h"

namespace lockstep::diffusion {
namespace {

constexpr int64_t kDigits = 10;

// The digit that the class of that number is; by its name where it has one.
int digit_of_class(const ModelDescription& classifier, int64_t number) {
  const std::string name = classifier.class_text(number);
  return name.size() == 1 && name[0] >= '0' && name[0] <= '9' ? name[0] - '0' : -1;
}

std::vector<int> read_digits(InferenceSession& classifier, std::span<const SceneReading> readings) {
  std::vector<uint8_t> pixels;
  for (const SceneReading& r : readings) pixels.insert(pixels.end(), r.digit.begin(), r.digit.end());
  const auto count = static_cast<int64_t>(readings.size());
  std::vector<float> log_p(static_cast<size_t>(count * kDigits));
  const InputTensor images = input_tensor(kImages, pixels);
  const OutputTensor scores{"log_probabilities", log_p};
  classifier.run(kClassify, count, std::span(&images, 1), std::span(&scores, 1));
  std::vector<int> digits;
  for (auto p = log_p.begin(); p != log_p.end(); p += kDigits)
    digits.push_back(digit_of_class(classifier.description(), std::max_element(p, p + kDigits) - p));
  return digits;
}

}  // namespace

void expect_digit_classifier(const ModelDescription& c) {
  const bool shape = c.input.channels == 1 && c.input.height == kDigitSide && c.input.width == kDigitSide;
  std::array<bool, kDigits> known{};
  for (int64_t n = 0; n < c.input.classes; ++n)
    if (const int digit = digit_of_class(c, n); digit >= 0) known[static_cast<size_t>(digit)] = true;
  if (c.diffusion() || !shape || c.input.classes != kDigits || !std::ranges::all_of(known, std::identity{}))
    throw Error(Exit::config, "E_JUDGE_MODEL",
                "digits are read by a classifier of images of 1x28x28 in the classes 0 to 9")
        .hint("`lockstep fit configs/mnist_cnn.yaml` trains one");
}

std::vector<SceneVerdict> judge_scenes(InferenceSession& classifier, std::span<const uint8_t> pictures,
                                       std::span<const DigitScene> asked) {
  expect_digit_classifier(classifier.description());
  LOCKSTEP_ASSERT(pictures.size() == asked.size() * kSceneBytes);
  std::vector<SceneReading> readings;
  for (size_t i = 0; i < asked.size(); ++i)
    readings.push_back(read_scene(pictures.subspan(i * kSceneBytes, kSceneBytes)));
  const std::vector<int> digits = read_digits(classifier, readings);
  std::vector<SceneVerdict> verdicts;
  for (size_t i = 0; i < asked.size(); ++i) {
    const SceneReading& r = readings[i];
    const DigitScene& a = asked[i];
    verdicts.push_back({r, digits[i], r.found && digits[i] == a.digit, r.found && r.ink == a.ink,
                        r.paper == a.paper, r.found && r.place == a.place, r.found && r.size == a.size});
  }
  return verdicts;
}

SceneShares shares_of(std::span<const SceneVerdict> verdicts) {
  SceneShares s;
  s.count = static_cast<int64_t>(verdicts.size());
  for (const SceneVerdict& v : verdicts)
    s.digit += v.digit_right, s.ink += v.ink_right, s.paper += v.paper_right, s.place += v.place_right,
        s.size += v.size_right, s.all += v.all_right();
  for (double* share : {&s.digit, &s.ink, &s.paper, &s.place, &s.size, &s.all})
    *share /= static_cast<double>(std::max<int64_t>(1, s.count));
  return s;
}

}  // namespace lockstep::diffusion
