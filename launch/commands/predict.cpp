// SPDX-License-Identifier: Apache-2.0
// `lockstep predict RUN IMAGE...`: class and probabilities.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "runtime/data/fit.h"

namespace lockstep {

extern const Command predict_command;

namespace {

int run_predict(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string folder;
  std::vector<std::string> files;
  int top = 3;
  po::options_description visible("Options"), hidden;
  visible.add_options()("top", po::value(&top)->default_value(3)->value_name("N"),
                        "how many classes to print")(
      "json", "one JSON object an image, with every class's probability");
  hidden.add_options()("run", po::value(&folder))("image", po::value(&files));
  po::positional_options_description positional;
  positional.add("run", 1).add("image", -1);
  const auto vm = parse_arguments(
      predict_command,
      {"RUN IMAGE...", "lockstep predict runs/mnist-cnn-001 digit.png", visible, hidden, positional},
      arguments);
  if (!vm) return 0;
  if (folder.empty()) missing_argument(predict_command, "RUN");
  if (files.empty()) missing_argument(predict_command, "IMAGE");
  if (top < 1) throw Error(Exit::usage, "E_OPTION", "predict: --top is at least 1");

  const Job job = read_run_job(folder);
  if (job.hyperparameters.diffusion)
    throw Error(Exit::config, "E_PREDICT_MODEL", "the run trained a diffusion model, which names no classes")
        .at("run", folder)
        .hint("`lockstep sample` draws from it");
  const InputShape input = input_shape(job.training, probe_dataset(job.training));
  const auto names = load_dataset(job.training)->class_names;
  TrainedModel model = open_run_model(folder, input);
  model.session->prepare_prediction(1);
  auto& plan = model.session->prediction(1);
  for (const auto& file : files) {
    Image image = read_image(file, input.channels, job.training.fit);
    if (input.augment.random_crop.given())
      image = fitted(file, std::move(image), {.crop = {input.height, input.width}});
    if (image.height != input.height || image.width != input.width)
      throw Error(Exit::data, "E_IMAGE_SIZE",
                  fmt::format("the image is {}x{}, the model was trained on {}x{}", image.height, image.width,
                              input.height, input.width))
          .at("file", file);
    StepInputs inputs{image.pixels.data(), nullptr, {}};
    inputs.state.training = 0;
    model.session->executor().run(*plan.bound, inputs);
    const float* log_p = model.session->executor().output(*plan.bound, "log_probabilities").as<float>();
    std::vector<int64_t> order(static_cast<size_t>(input.classes));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return log_p[a] > log_p[b]; });
    if (vm->count("json")) {
      nlohmann::json p = nlohmann::json::object();
      for (int64_t c : order) p[names[static_cast<size_t>(c)]] = std::exp(double{log_p[c]});
      fmt::print("{}\n",
                 nlohmann::json{
                     {"file", file}, {"class", names[static_cast<size_t>(order[0])]}, {"probabilities", p}}
                     .dump());
      continue;
    }
    fmt::print("{}: {}", file, names[static_cast<size_t>(order[0])]);
    for (int64_t i = 0; i < std::min<int64_t>(top, input.classes); ++i)
      fmt::print("{}{} {:.2f}%", i ? ", " : "  (", names[static_cast<size_t>(order[static_cast<size_t>(i)])],
                 100 * std::exp(double{log_p[order[static_cast<size_t>(i)]]}));
    fmt::print(")\n");
  }
  return 0;
}

}  // namespace

const Command predict_command{"predict", "class and probabilities of images", run_predict};

}  // namespace lockstep
