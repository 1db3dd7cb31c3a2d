// SPDX-License-Identifier: Apache-2.0
// `lockstep predict RUN IMAGE...`: class and probabilities.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "launch/commands/command.h"
#include "launch/commands/launched_ranks.h"
#include "launch/commands/report_error.h"
#include "launch/job/trained_model.h"
#include "models/objectives/classification.h"
#include "models/picture.h"
#include "runtime/comm/together.h"
#include "runtime/data/sample_order.h"
#include "runtime/files/json_text.h"
#include "runtime/files/utf8.h"

namespace lockstep {

extern const Command predict_command;

namespace {

class PredictionLines {
 public:
  PredictionLines(const ModelDescription& model, bool json, int64_t top)
      : model_(model), json_(json), top_(top) {}

  std::string operator()(const std::string& file, std::span<const float> log_p) const {
    std::vector<int64_t> order(log_p.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto at = [&](int64_t c) { return log_p[static_cast<size_t>(c)]; };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return at(a) > at(b); });
    const std::string best = model_.class_text(order[0]);
    if (json_) {
      nlohmann::json p = nlohmann::json::object();
      for (int64_t c : order) p[model_.class_text(c)] = std::exp(double{at(c)});
      return json_text(nlohmann::json{{"file", file}, {"class", best}, {"probabilities", p}}) + "\n";
    }
    std::string line = fmt::format("{}: {}", printable(file), printable(best));
    const int64_t shown = std::min(top_, static_cast<int64_t>(order.size()));
    for (int64_t i = 0; i < shown; ++i) {
      const int64_t c = order[static_cast<size_t>(i)];
      line += fmt::format("{}{} {:.2f}%", i ? ", " : "  (", printable(model_.class_text(c)),
                          100 * std::exp(double{at(c)}));
    }
    return line + ")\n";
  }

 private:
  const ModelDescription& model_;
  bool json_;
  int64_t top_;
};

constexpr int64_t kPredictedAtOnce = 16;

// Tells `print` the lines of these files, in their order. A file that cannot be used, or that the model makes
// nothing of, is reported and passed over. The first such file's code; 0: none.
int predict_files(InferenceSession& model, std::span<const std::string> files, const PredictionLines& line_of,
                  const std::function<void(const std::string&)>& print) {
  const auto classes = static_cast<size_t>(model.description().input.classes);
  int damaged = 0;
  std::vector<std::string> batch;
  std::vector<uint8_t> pixels;
  const auto pass_over = [&](const Error& e) {
    report_error(e.what());
    if (damaged == 0) damaged = e.code();
  };
  const auto flush = [&] {
    if (batch.empty()) return;
    std::vector<float> log_p(batch.size() * classes);
    const InputTensor images = input_tensor(kImages, pixels);
    const OutputTensor output{"log_probabilities", log_p};
    model.run(kClassify, static_cast<int64_t>(batch.size()), std::span(&images, 1), std::span(&output, 1));
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto of_picture = std::span(log_p).subspan(i * classes, classes);
      if (std::all_of(of_picture.begin(), of_picture.end(), [](float p) { return std::isfinite(p); }))
        print(line_of(batch[i], of_picture));
      else
        pass_over(Error(Exit::diverged, "E_NOT_FINITE", "the model's probabilities of it are not finite")
                      .at("file", batch[i]));
    }
    batch.clear(), pixels.clear();
  };
  for (const std::string& file : files) {
    try {
      const Image image = read_picture(model.description(), file);
      pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
      batch.push_back(file);
    } catch (const Error& e) {
      pass_over(e);
    }
    if (static_cast<int64_t>(batch.size()) == kPredictedAtOnce) flush();
  }
  flush();
  return damaged;
}

// The ranks that a launcher started share the files; rank 0 prints.
int predict(const std::string& folder, const std::vector<std::string>& files, bool json, int top) {
  return on_launched_ranks([&](Communicator& comm) {
    const bool root = comm.rank() == 0;
    TrainedModel trained;
    together(comm, [&] {
      trained = open_trained(folder, root ? report_error : nullptr);
      if (trained.description.diffusion())
        throw Error(Exit::config, "E_PREDICT_MODEL", "a diffusion model names no classes")
            .at("folder", folder)
            .hint("`lockstep sample` draws from it");
    });
    const auto model = open_session(trained, {.largest_batch = kPredictedAtOnce}, comm);
    const Slice mine = slice_of(static_cast<int64_t>(files.size()), comm.size(), comm.rank());
    const auto part =
        std::span(files).subspan(static_cast<size_t>(mine.begin), static_cast<size_t>(mine.size()));
    // One rank prints as it goes; several wait, so that the lines come in the files' order.
    std::string lines;
    const auto print = [&](const std::string& line) {
      if (comm.size() == 1)
        print_out("{}", line);
      else
        lines += line;
    };
    int64_t code = 0;
    together(comm, [&] {
      code = predict_files(*model, part, PredictionLines(trained.description, json, top), print);
    });
    const std::vector<std::string> all = comm.gather_text(lines);
    // The first file's that could not be used, as one rank has it: that of the lowest rank.
    constexpr int64_t kCodes = 256;
    if (code != 0) code += kCodes * (comm.size() - comm.rank());
    comm.allreduce(std::span(&code, 1), Reduce::max);
    code %= kCodes;
    if (root)
      for (const std::string& text : all) print_out("{}", text);
    return static_cast<int>(code);
  });
}

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
  return predict(folder, files, vm->count("json") > 0, top);
}

}  // namespace

const Command predict_command{"predict", "class and probabilities of images", run_predict, true};

}  // namespace lockstep
