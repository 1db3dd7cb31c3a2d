// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/judge.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/commands/job_plan.h"
#include "launch/commands/split.h"
#include "models/diffusion/judge.h"
#include "runtime/comm/together.h"

namespace lockstep {
namespace {

// The classifier, which must see such images as the diffusion model draws.
TrainedModel open_judge(const std::string& folder, const Job& drawer) {
  const Job job = read_run_job(folder);
  if (job.hyperparameters.diffusion)
    throw Error(Exit::config, "E_JUDGE_MODEL", "the judge is a diffusion model, which names no classes")
        .at("run", folder)
        .hint("--judge takes the run of a classifier of the same images");
  const InputShape own = input_shape(job.training, probe_dataset(job.training)),
                   drawn = input_shape(drawer.training, probe_dataset(drawer.training));
  const auto shape = [](const InputShape& d) {
    return fmt::format("{}x{}x{} in {} classes", d.channels, d.height, d.width, d.classes);
  };
  if (shape(own) != shape(drawn))
    throw Error(
        Exit::config, "E_JUDGE_SHAPE",
        fmt::format("the judge knows images of {}, the diffusion model's are {}", shape(own), shape(drawn)))
        .at("run", folder);
  return open_run_model(folder, own);
}

void print_json(const JudgeRequest& o, const diffusion::GenerateRequest& r, const diffusion::Verdict& v) {
  nlohmann::json j{{"split", o.split},
                   {"count", r.count},
                   {"sampler", r.sampler},
                   {"steps", r.steps},
                   {"guidance", r.guidance},
                   {"seed", r.seed},
                   {"frechet_distance", v.distance},
                   {"training_frechet_distance", v.training_distance},
                   {"frechet_ratio", v.ratio()}};
  if (v.accuracy) j["accuracy"] = *v.accuracy;
  fmt::print("{}\n", j.dump());
}

void print_text(const JudgeRequest& o, const diffusion::GenerateRequest& r, const diffusion::Verdict& v) {
  fmt::print("{} samples, {} in {} steps{}", r.count, r.sampler, r.steps,
             r.guidance != 1 ? fmt::format(", guidance {}", r.guidance) : "");
  if (v.accuracy)
    fmt::print(": {:.2f}% read as the class asked for ({} of {})", 100 * *v.accuracy,
               static_cast<int64_t>(*v.accuracy * static_cast<double>(r.count) + 0.5), r.count);
  fmt::print("\nFréchet distance to {} {} images: {:.4g}, that of {} training images {:.4g}, ratio {:.3f}\n",
             r.count, o.split, v.distance, r.count, v.training_distance, v.ratio());
}

}  // namespace

int judge_samples(const JudgeRequest& o, const boost::program_options::variables_map& vm) {
  const std::unique_ptr<Communicator> comm = launched_communicator();
  try {
    SamplingModel model;
    together(*comm, [&] {
      model = sampling_of_run(o.run);
      set_count(model, 1000);
      apply("evaluate", vm, o.sampling, model);
      if (model.request.count < 2)
        throw Error(Exit::usage, "E_OPTION", "evaluate: --count is at least 2: a set has a variance");
      if (o.split == "training")
        throw Error(Exit::usage, "E_OPTION",
                    "evaluate: --judge compares with images that are not training images")
            .hint("--split test or validation");
      diffusion::make_sampler(model.request.sampler, model.scheduler, model.request.steps, model.request.eta);
    });
    // All that can be wrong is said before the drawing, which takes its time.
    TrainedModel classifier;
    std::optional<diffusion::Judge> judge;
    on_root(*comm, [&]() -> std::string {
      const Job job = read_run_job(o.run);
      classifier = open_judge(o.judge, job);
      const auto real = [&](const std::string& split) {
        return first_images(load_split(job, split, o.run), model.request.count, job.hyperparameters.seed);
      };
      judge.emplace(*classifier.session, real("training"), real(o.split));
      return "";
    });
    const auto images = draw(model, *comm).images;
    on_root(*comm, [&]() -> std::string {
      std::vector<uint8_t> pixels;
      for (const Image& image : diffusion::pictures(images, model.input))
        pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
      const diffusion::Verdict verdict = (*judge)(pixels, model.request.labels);
      (o.json ? print_json : print_text)(o, model.request, verdict);
      return "";
    });
    return 0;
  } catch (const AgreedError& e) {
    if (comm->rank() != 0) return e.code();  // rank 0 says it
    throw;
  }
}

}  // namespace lockstep
