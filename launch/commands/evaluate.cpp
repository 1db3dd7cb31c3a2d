// SPDX-License-Identifier: Apache-2.0
// `lockstep evaluate RUN`: loss and accuracy of a run's weights, or how good its samples are.
#include <fmt/format.h>

#include <cmath>

#include "launch/commands/command.h"
#include "launch/commands/judge.h"
#include "launch/commands/launched_ranks.h"
#include "launch/commands/report_error.h"
#include "launch/commands/split.h"
#include "runtime/comm/agree.h"
#include "runtime/comm/together.h"
#include "runtime/files/json_text.h"

namespace lockstep {

extern const Command evaluate_command;

namespace {

void print_score_json(const std::string& split, const Score& s) {
  nlohmann::json j{{"split", split}, {"loss", s.loss}, {"count", s.count}};
  if (s.accuracy) j["accuracy"] = *s.accuracy;
  if (!s.confusion.empty()) j["confusion"] = s.confusion;
  if (s.bands)
    for (const auto& band : *s.bands) j["bands"].push_back({{"loss", band.loss}, {"count", band.count}});
  print_out("{}\n", json_text(j));
}

// steps: timesteps of a diffusion model.
void print_score_text(const std::string& split, const Score& s, int64_t steps) {
  if (s.accuracy) {
    print_out("{}: loss {:.4f}, accuracy {:.2f}% ({} of {} images)\n", split, s.loss, 100 * *s.accuracy,
              std::llround(*s.accuracy * static_cast<double>(s.count)), s.count);
    return;
  }
  print_out("{}: loss {:.4f} ({} images); squared error by timestep:\n", split, s.loss, s.count);
  for (size_t i = 0; s.bands && i < s.bands->size(); ++i) {
    // The first timestep of a band: the least t with t * kBands / steps equal to it.
    const auto at = [&](size_t band) {
      return (static_cast<int64_t>(band) * steps + Score::kBands - 1) / Score::kBands;
    };
    print_out("  {:>4} to {:>4}  {:.4f}  ({} images)\n", at(i), at(i + 1) - 1, (*s.bands)[i].loss,
              (*s.bands)[i].count);
  }
}

// The ranks that a launcher started share the images.
int evaluate_model(const std::string& folder, const DataChoice& choice, bool json) {
  return on_launched_ranks([&](Communicator& comm) {
    const bool root = comm.rank() == 0;
    TrainedModel model;
    Split data;
    together(comm, [&] {
      model = open_trained(folder, root ? report_error : nullptr);
      if (model.description.model.text_to_image.vae)
        throw Error(Exit::config, "E_EVALUATE_MODEL", "a model that draws latents has no loss on images here")
            .at("folder", folder);
      data = load_split(model, choice, root);
      if (model.description.conditional()) expect_classes(data.config, data.images->shape());
    });
    require_agreement(comm, {{"the images", "content " + data.images->content_hash.substr(0, 12)}});
    const Score s = open_session(model, {.largest_batch = 0}, comm)
                        ->evaluate(*data.images, data.subset, model.tokenizer.get());
    if (!root) return 0;
    const auto& diffusion = model.description.config.diffusion;
    if (json)
      print_score_json(choice.split, s);
    else
      print_score_text(choice.split, s,
                       diffusion ? static_cast<int64_t>(diffusion->alphas_cumprod.size()) : 0);
    return 0;
  });
}

int run_evaluate(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string folder;
  DataChoice choice;
  JudgeRequest judged;
  po::options_description visible("Options"), hidden;
  visible.add_options()("split", po::value(&choice.split)->default_value("test")->value_name("NAME"),
                        "training, validation or test")("data", po::value(&choice.path)->value_name("FOLDER"),
                                                        "other images than those of the run's job")(
      "dataset", po::value(&choice.dataset)->value_name("KIND"),
      "what --data holds: image_folder, mnist, fashion_mnist, cifar10, idx, captioned_digits; left out: what "
      "was trained on")("json", "one JSON object instead of text")(
      "judge", po::value(&judged.judge)->value_name("RUN2"),
      "of a diffusion run: samples (1000, of each class in turn) as the classifier RUN2 reads them, and "
      "their Fréchet distance "
      "to real images of the split; of a painter of captioned digits what is right of what was asked for")(
      "verdicts", po::value(&judged.verdicts)->value_name("FILE"),
      "with --judge, of a painter: what was asked and what was read, a JSON object a picture");
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
  if (vm->count("dataset") && !vm->count("data"))
    throw Error(Exit::usage, "E_OPTION", "evaluate: --dataset goes with --data");
  if (vm->count("judge")) {
    judged.run = folder, judged.data = choice, judged.json = vm->count("json") > 0;
    return judge_samples(judged, *vm);
  }
  if (vm->count("verdicts")) throw Error(Exit::usage, "E_OPTION", "evaluate: --verdicts goes with --judge");
  for (const auto& option : sampling.options())
    if (vm->count(option->long_name()))
      throw Error(Exit::usage, "E_OPTION",
                  fmt::format("evaluate: --{} goes with --judge", option->long_name()));
  return evaluate_model(folder, choice, vm->count("json") > 0);
}

}  // namespace

const Command evaluate_command{
    "evaluate", "loss and accuracy of a run's weights, or what a classifier reads in its samples",
    run_evaluate, true};

}  // namespace lockstep
