// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/commands/judge.h"
#include "launch/commands/report_error.h"
#include "models/diffusion/scene_judge.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/together.h"
#include "runtime/data/captioned_digits.h"
#include "runtime/data/digit_caption.h"
#include "runtime/files/json_text.h"

namespace lockstep {
namespace {

using diffusion::SceneShares, diffusion::SceneVerdict, diffusion::judge_scenes, diffusion::shares_of;

constexpr int64_t kScenesAtOnce = 64;

// Half of them of pairs that training showed, half of pairs that it did not.
std::vector<DigitScene> scenes_to_ask(uint64_t seed, int64_t count) {
  std::vector<DigitScene> scenes;
  for (const ScenePairs pairs : {ScenePairs::seen, ScenePairs::held_out})
    for (int64_t n = 0; n < count / 2; ++n)
      scenes.push_back(scene_of(seed, 0, n, static_cast<int>(n % 10), pairs));
  return scenes;
}

// What a perfect painter would come to: real captioned images, read in the same way.
SceneShares judge_real(InferenceSession& classifier, const Split& split, int64_t count) {
  const auto* digits = dynamic_cast<const CaptionedDigits*>(split.images.get());
  if (!digits)
    throw Error(Exit::config, "E_JUDGE_DATA",
                "a painter of captioned digits is judged beside captioned_digits")
        .hint("--dataset captioned_digits --data FOLDER of MNIST's files");
  count = std::min(count, split.count());
  std::vector<DigitScene> scenes;
  std::vector<uint8_t> pixels(static_cast<size_t>(count * kSceneBytes));
  for (int64_t n = 0; n < count; ++n) {
    const int64_t i = split.subset.empty() ? n : split.subset[static_cast<size_t>(n)];
    scenes.push_back(digits->scene(0, i));
    digits->copy_pixels(0, i, pixels.data() + n * kSceneBytes);
  }
  return shares_of(judge_scenes(classifier, pixels, scenes));
}

nlohmann::ordered_json to_json(const SceneShares& s) {
  return {{"count", s.count}, {"digit", s.digit}, {"ink", s.ink}, {"paper", s.paper},
          {"place", s.place}, {"size", s.size},   {"all", s.all}};
}

nlohmann::ordered_json attributes(int digit, int ink, int paper, DigitPlace place, DigitSize size) {
  return {{"digit", digit},
          {"ink", kColourNames[static_cast<size_t>(ink)]},
          {"paper", kColourNames[static_cast<size_t>(paper)]},
          {"place", name_of(place)},
          {"size", name_of(size)}};
}

void write_verdicts(const std::string& path, std::span<const DigitScene> asked,
                    std::span<const SceneVerdict> verdicts) {
  std::string lines;
  for (size_t i = 0; i < asked.size(); ++i) {
    const DigitScene& a = asked[i];
    const SceneVerdict& v = verdicts[i];
    nlohmann::ordered_json line = {{"number", i},
                                   {"prompt", prompt_of_scene(a)},
                                   {"held_out", is_held_out(a)},
                                   {"asked", attributes(a.digit, a.ink, a.paper, a.place, a.size)}};
    line["read"] = v.read.found ? attributes(v.digit, v.read.ink, v.read.paper, v.read.place, v.read.size)
                                : nlohmann::ordered_json(nullptr);
    line["right"] = v.all_right();
    lines += json_text(line) + "\n";
  }
  write_file_atomically(path, lines);
}

void print_shares(const JudgeRequest& o, const diffusion::GenerateRequest& r, const SceneShares& real,
                  const SceneShares& seen, const SceneShares& held_out) {
  if (o.json) {
    const nlohmann::ordered_json j = {
        {"sampler", r.sampler},  {"steps", r.steps},      {"guidance", r.guidance},       {"seed", r.seed},
        {"real", to_json(real)}, {"seen", to_json(seen)}, {"held_out", to_json(held_out)}};
    print_out("{}\n", json_text(j));
    return;
  }
  print_out("{} pictures, {} in {} steps{}; right as they are read, in %:\n", r.count, r.sampler, r.steps,
            r.guidance != 1 ? fmt::format(", guidance {}", r.guidance) : "");
  print_out("{:<10}{:>13}{:>13}{:>17}\n", "", "real images", "seen pairs", "held-out pairs");
  const auto row = [&](const char* name, double SceneShares::*share) {
    print_out("{:<10}{:>13.1f}{:>13.1f}{:>17.1f}\n", name, 100 * real.*share, 100 * seen.*share,
              100 * held_out.*share);
  };
  row("digit", &SceneShares::digit), row("ink", &SceneShares::ink), row("paper", &SceneShares::paper);
  row("place", &SceneShares::place), row("size", &SceneShares::size), row("all five", &SceneShares::all);
}

}  // namespace

void judge_drawn_scenes(const JudgeRequest& o, SamplingModel& model, Communicator& comm) {
  auto& r = model.request;
  const InputShape& in = model.description().input;
  std::vector<DigitScene> scenes;
  std::unique_ptr<Communicator> alone = make_self_communicator();  // the judge is rank 0's
  std::unique_ptr<InferenceSession> classifier;
  SceneShares real;
  // All that can be wrong is said before the drawing, which takes its time.
  together(comm, [&] {
    if (in.channels != 3 || in.height != kSceneSide || in.width != kSceneSide)
      throw Error(Exit::config, "E_JUDGE_SHAPE",
                  fmt::format("captioned digits are of 3x{0}x{0}, the model draws {1}x{2}x{3}", kSceneSide,
                              in.channels, in.height, in.width))
          .at("folder", o.run);
    r.count -= r.count % 2;
    scenes = scenes_to_ask(r.seed, r.count);
    std::vector<std::string> prompts;
    for (const DigitScene& s : scenes) prompts.push_back(prompt_of_scene(s));
    diffusion::set_prompts(r, *model.trained.tokenizer, prompts);
  });
  on_root(comm, [&]() -> std::string {
    const TrainedModel opened = open_trained(o.judge, report_error);
    diffusion::expect_digit_classifier(opened.description);
    classifier = open_session(opened, {.largest_batch = kScenesAtOnce}, *alone);
    real = judge_real(*classifier, load_split(model.trained, o.data), r.count);
    return "";
  });
  const auto images = draw(model, comm).images;
  on_root(comm, [&]() -> std::string {
    std::vector<uint8_t> pixels(scenes.size() * kSceneBytes);
    const auto pictures = diffusion::pictures(images, in);
    for (size_t i = 0; i < pictures.size(); ++i)
      std::ranges::copy(pictures[i].pixels, pixels.begin() + static_cast<std::ptrdiff_t>(i * kSceneBytes));
    const auto verdicts = judge_scenes(*classifier, pixels, scenes);
    const size_t half = verdicts.size() / 2;
    if (!o.verdicts.empty()) write_verdicts(o.verdicts, scenes, verdicts);
    print_shares(o, r, real, shares_of(std::span(verdicts).first(half)),
                 shares_of(std::span(verdicts).subspan(half)));
    return "";
  });
}

}  // namespace lockstep
