// `lockstep evaluate RUN`: loss and accuracy of a run's weights.
#include <fmt/format.h>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "runtime/data/sampler.h"

namespace lockstep {

extern const Command evaluate_command;

namespace {

void print_json(const std::string& split, const Score& s) {
  nlohmann::json j{{"split", split}, {"loss", s.loss}, {"count", s.count}};
  if (s.accuracy) j["accuracy"] = *s.accuracy;
  if (s.bands)
    for (const auto& band : *s.bands) j["bands"].push_back({{"loss", band.loss}, {"count", band.count}});
  fmt::print("{}\n", j.dump());
}

void print_text(const std::string& split, const Score& s, const Job& job) {
  if (s.accuracy) {
    fmt::print("{}: loss {:.4f}, accuracy {:.2f}% ({} of {} images)\n", split, s.loss, 100 * *s.accuracy,
               static_cast<int64_t>(*s.accuracy * static_cast<double>(s.count) + 0.5), s.count);
    return;
  }
  fmt::print("{}: loss {:.4f} ({} images); squared error by timestep:\n", split, s.loss, s.count);
  const auto steps = static_cast<int64_t>(job.hyperparameters.diffusion->alphas_cumprod.size());
  for (size_t i = 0; s.bands && i < s.bands->size(); ++i) {
    // The first timestep of a band: the least t with t * kBands / steps equal to it.
    const auto at = [&](size_t band) { return (static_cast<int64_t>(band) * steps + Score::kBands - 1) / Score::kBands; };
    fmt::print("  {:>4} to {:>4}  {:.4f}  ({} images)\n", at(i), at(i + 1) - 1, (*s.bands)[i].loss, (*s.bands)[i].count);
  }
}

int run(const std::vector<std::string>& arguments) {
  namespace po = boost::program_options;
  std::string folder, split;
  po::options_description visible("Options"), hidden;
  visible.add_options()("split", po::value(&split)->default_value("test")->value_name("NAME"),
                        "training, validation or test")("json", "one JSON object instead of a line of text");
  hidden.add_options()("run", po::value(&folder));
  po::positional_options_description positional;
  positional.add("run", 1);
  const auto vm = parse_arguments(evaluate_command, "RUN", "lockstep evaluate runs/mnist-cnn-001 --split test", arguments, visible,
                                  hidden, positional);
  if (!vm) return 0;
  if (folder.empty()) missing_argument(evaluate_command, "RUN");
  const Job job = read_run_job(folder);

  std::vector<int64_t> subset;
  const DatasetConfig* config = nullptr;
  if (split == "training") config = &job.training;
  if (split == "validation") config = job.validation ? &*job.validation : job.validation_fraction > 0 ? &job.training : nullptr;
  if (split == "test") config = job.test ? &*job.test : nullptr;
  if (split != "training" && split != "validation" && split != "test")
    throw Error(Exit::usage, "E_SPLIT", fmt::format("no split '{}'", split)).hint("training, validation or test");
  if (!config) throw Error(Exit::no_input, "E_SPLIT", fmt::format("the run's job has no {} data", split)).at("run", folder);
  const auto images = load_dataset(*config);
  if (job.validation_fraction > 0 && split != "test") {
    const auto seed = job.hyperparameters.seed;
    subset = split == "training" ? training_indices(images->count(), job.validation_fraction, seed)
                                 : validation_indices(images->count(), job.validation_fraction, seed);
  }
  // The number of classes is the training data's: a test set may lack some.
  const int64_t classes = probe_dataset(job.training).classes;
  TrainedModel model =
      open_run_model(folder, input_shape(job.training, images->channels, images->height, images->width, classes));
  const Score s = evaluate(*model.session, *images, subset);
  if (vm->count("json"))
    print_json(split, s);
  else
    print_text(split, s, job);
  return 0;
}

}  // namespace

const Command evaluate_command{"evaluate", "loss and accuracy of a run's weights", run};

}  // namespace lockstep
