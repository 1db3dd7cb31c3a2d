// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/split.h"

#include "launch/commands/report_error.h"
#include "launch/job/job.h"
#include "runtime/data/fit.h"
#include "runtime/data/sample_order.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/training/trainer.h"

namespace lockstep {

namespace {

// Of the run's job, with the part of it that was held back.
DatasetConfig data_of_job(const TrainedModel& model, const std::string& split, double& validation_fraction) {
  if (model.run.empty())
    throw Error(Exit::no_input, "E_SPLIT", "there is no job.yaml that says which images to take")
        .at("folder", model.folder)
        .hint("--data FOLDER");
  const Job job = read_run_job(model.run);
  validation_fraction = job.validation_fraction;
  const DatasetConfig* config = nullptr;
  if (split == "training") config = &job.training;
  if (split == "validation")
    config = job.validation ? &*job.validation : job.validation_fraction > 0 ? &job.training : nullptr;
  if (split == "test") config = job.test ? &*job.test : nullptr;
  if (!config)
    throw Error(Exit::no_input, "E_SPLIT", fmt::format("the run's job has no {} data", split))
        .at("run", model.run);
  return *config;
}

DatasetConfig data_in(const DataChoice& choice, const ModelDescription& model) {
  DatasetConfig config;
  config.dataset = choice.dataset.empty() ? model.dataset : choice.dataset;
  if (config.dataset.empty()) config.dataset = "image_folder";
  config.path = choice.path;
  config.split = choice.split == "training" ? "training" : "test";
  config.fit = model.fit;
  config.seed = model.config.seed;
  return config;
}

}  // namespace

Split load_split(const TrainedModel& model, const DataChoice& choice, bool say) {
  const std::string& name = choice.split;
  if (name != "training" && name != "validation" && name != "test")
    throw Error(Exit::usage, "E_SPLIT", fmt::format("no split '{}'", name))
        .hint("training, validation or test");
  const ModelDescription& d = model.description;
  double validation_fraction = 0;
  const DatasetConfig config =
      choice.path.empty() ? data_of_job(model, name, validation_fraction) : data_in(choice, d);
  const DatasetShape like = d.data_shape();
  Split split{name, open_dataset(config, usable_cores(), &like), {}, config};
  if (say) {
    for (const std::string& remark : split.images->remarks) report_error("note: " + remark);
    for (const std::string& skipped : split.images->skipped) report_error("skipped " + skipped);
  }
  if (validation_fraction > 0 && name != "test")
    split.subset = name == "training"
                       ? training_indices(split.images->count(), validation_fraction, d.config.seed)
                       : validation_indices(split.images->count(), validation_fraction, d.config.seed);
  if (d.window.given()) {
    split.images = middle_of(config.path, *split.images, d.window, split.subset);
    split.subset.clear();
  }
  expect_size(config, split.images->shape(), d.input);
  return split;
}

std::vector<uint8_t> first_images(const Split& split, int64_t count, uint64_t seed) {
  if (split.count() < count)
    throw Error(Exit::usage, "E_OPTION",
                fmt::format("{} {} images are asked for, there are {}", count, split.name, split.count()))
        .hint(fmt::format("--count {}", split.count()));
  const SampleSource& images = *split.images;
  const SampleOrder order(split.count(), seed, true);
  std::vector<uint8_t> pixels(static_cast<size_t>(count * images.sample_bytes()));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = order.sample(0, i);
    images.copy_pixels(0, split.subset.empty() ? at : split.subset[static_cast<size_t>(at)],
                       pixels.data() + i * images.sample_bytes());
  }
  return pixels;
}

}  // namespace lockstep
