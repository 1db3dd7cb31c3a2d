// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "launch/commands/launched_ranks.h"
#include "launch/commands/report_error.h"
#include "models/diffusion/judge.h"
#include "runtime/comm/together.h"
#include "runtime/files/json_text.h"

namespace lockstep {
namespace {

constexpr int64_t kJudgedAtOnce = 64;

// The classifier, which must see such images as the diffusion model draws.
TrainedModel open_judge(const std::string& folder, const ModelDescription& drawer) {
  TrainedModel judge = open_trained(folder, report_error);
  const ModelDescription& own = judge.description;
  if (own.diffusion())
    throw Error(Exit::config, "E_JUDGE_MODEL", "the judge is a diffusion model, which names no classes")
        .at("folder", folder)
        .hint("--judge takes the run of a classifier of the same images");
  const auto shape = [](const InputShape& d) {
    return fmt::format("{}x{}x{}", d.channels, d.height, d.width);
  };
  if (shape(own.input) != shape(drawer.input))
    throw Error(Exit::config, "E_JUDGE_SHAPE",
                fmt::format("the judge knows images of {}, the diffusion model's are {}", shape(own.input),
                            shape(drawer.input)))
        .at("folder", folder);
  return judge;
}

// The judge's number of each of the diffusion model's classes, by their names; by their numbers where one of
// them has no names.
std::vector<int32_t> judged_classes(const ModelDescription& drawer, const ModelDescription& judge) {
  std::vector<int32_t> numbers(static_cast<size_t>(drawer.input.classes));
  const bool named = !drawer.class_names.empty() && !judge.class_names.empty();
  for (size_t c = 0; c < numbers.size(); ++c) {
    const auto& names = judge.class_names;
    const auto at = named ? std::find(names.begin(), names.end(), drawer.class_names[c]) - names.begin()
                          : static_cast<std::ptrdiff_t>(c);
    if (at >= judge.input.classes)
      throw Error(Exit::config, "E_JUDGE_SHAPE",
                  fmt::format("the judge knows no class {}, which the diffusion model draws",
                              drawer.class_text(static_cast<int64_t>(c))));
    numbers[c] = static_cast<int32_t>(at);
  }
  return numbers;
}

void print_json(const JudgeRequest& o, const diffusion::GenerateRequest& r, const diffusion::Verdict& v) {
  nlohmann::json j{{"split", o.data.split},          {"count", r.count},
                   {"sampler", r.sampler},           {"steps", r.steps},
                   {"guidance", r.guidance},         {"seed", r.seed},
                   {"frechet_distance", v.distance}, {"training_frechet_distance", v.training_distance},
                   {"frechet_ratio", v.ratio()}};
  if (v.accuracy) j["accuracy"] = *v.accuracy;
  print_out("{}\n", json_text(j));
}

void print_text(const JudgeRequest& o, const diffusion::GenerateRequest& r, const diffusion::Verdict& v) {
  print_out("{} samples, {} in {} steps{}", r.count, r.sampler, r.steps,
            r.guidance != 1 ? fmt::format(", guidance {}", r.guidance) : "");
  if (v.accuracy)
    print_out(": {:.2f}% read as the class asked for ({} of {})", 100 * *v.accuracy,
              std::llround(*v.accuracy * static_cast<double>(r.count)), r.count);
  print_out("\nFréchet distance to {} {} images: {:.4g}, that of {} training images {:.4g}, ratio {:.3f}\n",
            r.count, o.data.split, v.distance, r.count, v.training_distance, v.ratio());
}

}  // namespace

int judge_samples(const JudgeRequest& o, const boost::program_options::variables_map& vm) {
  return on_launched_ranks([&](Communicator& comm) {
    SamplingModel model;
    together(comm, [&] {
      model = open_sampling_model(o.run, comm.rank() == 0);
      set_count(model, 1000);
      apply("evaluate", vm, o.sampling, model);
      if (model.request.count < 2)
        throw Error(Exit::usage, "E_OPTION", "evaluate: --count is at least 2: a set has a variance");
      if (o.data.split == "training")
        throw Error(Exit::usage, "E_OPTION",
                    "evaluate: --judge compares with images that are not training images")
            .hint("--split test or validation");
      expect_sampler(model);
      if (!o.verdicts.empty() && !model.trained.tokenizer)
        throw Error(Exit::usage, "E_OPTION", "evaluate: --verdicts is for models that are told what to draw");
    });
    if (model.trained.tokenizer) return judge_drawn_scenes(o, model, comm), 0;
    // All that can be wrong is said before the drawing, which takes its time.
    std::unique_ptr<Communicator> alone = make_self_communicator();  // the judge is rank 0's
    std::unique_ptr<InferenceSession> classifier;
    std::optional<diffusion::Judge> judge;
    std::vector<int32_t> classes;
    on_root(comm, [&]() -> std::string {
      const TrainedModel opened = open_judge(o.judge, model.description());
      if (!model.request.labels.empty()) classes = judged_classes(model.description(), opened.description);
      classifier = open_session(opened, {.largest_batch = kJudgedAtOnce}, *alone);
      const auto real = [&](const std::string& split) {
        DataChoice choice = o.data;
        choice.split = split;
        return first_images(load_split(model.trained, choice), model.request.count,
                            model.description().config.seed);
      };
      judge.emplace(*classifier, real("training"), real(o.data.split));
      return "";
    });
    const auto images = draw(model, comm).images;
    on_root(comm, [&]() -> std::string {
      std::vector<uint8_t> pixels;
      for (const Image& image : diffusion::pictures(images, model.description().input))
        pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
      std::vector<int32_t> labels;
      for (int32_t label : model.request.labels) labels.push_back(classes[static_cast<size_t>(label)]);
      const diffusion::Verdict verdict = (*judge)(pixels, labels);
      (o.json ? print_json : print_text)(o, model.request, verdict);
      return "";
    });
    return 0;
  });
}

}  // namespace lockstep
