// SPDX-License-Identifier: Apache-2.0
// `lockstep evaluate RUN`: loss and accuracy of a run's weights, or how good its samples are.
#include <fmt/format.h>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "launch/commands/judge.h"
#include "launch/commands/split.h"

namespace lockstep {

extern const Command evaluate_command;

namespace {

void print_score_json(const std::string& split, const Score& s) {
  nlohmann::json j{{"split", split}, {"loss", s.loss}, {"count", s.count}};
  if (s.accuracy) j["accuracy"] = *s.accuracy;
  if (s.bands)
    for (const auto& band : *s.bands) j["bands"].push_back({{"loss", band.loss}, {"count", band.count}});
  fmt::print("{}\n", j.dump());
}

void print_score_text(const std::string& split, const Score& s, const Job& job) {
  if (s.accuracy) {
    fmt::print("{}: loss {:.4f}, accuracy {:.2f}% ({} of {} images)\n", split, s.loss, 100 * *s.accuracy,
               static_cast<int64_t>(*s.accuracy * static_cast<double>(s.count) + 0.5), s.count);
    return;
  }
  fmt::print("{}: loss {:.4f} ({} images); squared error by timestep:\n", split, s.loss, s.count);
  const auto steps = static_cast<int64_t>(job.hyperparameters.diffusion->alphas_cumprod.size());
  for (size_t i = 0; s.bands && i < s.bands->size(); ++i) {
    // The first timestep of a band: the least t with t * kBands / steps equal to it.
    const auto at = [&](size_t band) {
      return (static_cast<int64_t>(band) * steps + Score::kBands - 1) / Score::kBands;
    };
    fmt::print("  {:>4} to {:>4}  {:.4f}  ({} images)\n", at(i), at(i + 1) - 1, (*s.bands)[i].loss,
               (*s.bands)[i].count);
  }
}

int run_evaluate(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string folder, split;
  JudgeRequest judged;
  po::options_description visible("Options"), hidden;
  visible.add_options()("split", po::value(&split)->default_value("test")->value_name("NAME"),
                        "training, validation or test")("json", "one JSON object instead of text")(
      "judge", po::value(&judged.judge)->value_name("RUN2"),
      "of a diffusion run: samples (1000, of each class in turn) as the classifier RUN2 reads them, and "
      "their Fréchet distance "
      "to real images of the split");
  const auto sampling = judged.sampling.description();
  visible.add(sampling);
  hidden.add_options()("run", po::value(&folder));
  po::positional_options_description positional;
  positional.add("run", 1);
  const auto vm =
      parse_arguments(evaluate_command,
                      {"RUN",
                       "lockstep evaluate runs/mnist-cnn-001 --split test\n"
                       "  lockstep evaluate runs/ddpm-mnist-001 --judge runs/mnist-cnn-001 --guidance 1.5",
                       visible, hidden, positional},
                      arguments);
  if (!vm) return 0;
  if (folder.empty()) missing_argument(evaluate_command, "RUN");
  if (vm->count("judge")) {
    judged.run = folder, judged.split = split, judged.json = vm->count("json") > 0;
    return judge_samples(judged, *vm);
  }
  for (const auto& option : sampling.options())
    if (vm->count(option->long_name()))
      throw Error(Exit::usage, "E_OPTION",
                  fmt::format("evaluate: --{} goes with --judge", option->long_name()));
  const Job job = read_run_job(folder);
  const Split data = load_split(job, split, folder);
  const ImageSet& images = *data.images;
  TrainedModel model = open_run_model(folder, input_shape(job.training, probe_dataset(job.training)));
  const Score s = evaluate(*model.session, images, data.subset);
  if (vm->count("json"))
    print_score_json(split, s);
  else
    print_score_text(split, s, job);
  return 0;
}

}  // namespace

const Command evaluate_command{
    "evaluate", "loss and accuracy of a run's weights, or what a classifier reads in its samples",
    run_evaluate};

}  // namespace lockstep
