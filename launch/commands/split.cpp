// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/split.h"

#include "runtime/data/fit.h"
#include "runtime/data/sample_order.h"
#include "runtime/training/trainer.h"

namespace lockstep {

Split load_split(const Job& job, const std::string& name, const std::string& run) {
  const DatasetConfig* config = nullptr;
  if (name == "training") config = &job.training;
  if (name == "validation")
    config = job.validation ? &*job.validation : job.validation_fraction > 0 ? &job.training : nullptr;
  if (name == "test") config = job.test ? &*job.test : nullptr;
  if (name != "training" && name != "validation" && name != "test")
    throw Error(Exit::usage, "E_SPLIT", fmt::format("no split '{}'", name))
        .hint("training, validation or test");
  if (!config)
    throw Error(Exit::no_input, "E_SPLIT", fmt::format("the run's job has no {} data", name)).at("run", run);
  const DatasetShape seen = probe_dataset(job.training);
  Split split{name, load_dataset(*config, 1, &seen), {}};
  if (job.validation_fraction > 0 && name != "test") {
    const auto seed = job.hyperparameters.seed;
    split.subset = name == "training"
                       ? training_indices(split.images->count(), job.validation_fraction, seed)
                       : validation_indices(split.images->count(), job.validation_fraction, seed);
  }
  if (const Extent window = job.training.augment.random_crop.both(); window.given()) {
    split.images = middle_of(config->path, *split.images, window, split.subset);
    split.subset.clear();
  }
  expect_size(*config, split.images->shape(), input_shape(job.training, seen));
  return split;
}

std::vector<uint8_t> first_images(const Split& split, int64_t count, uint64_t seed) {
  if (split.count() < count)
    throw Error(Exit::usage, "E_OPTION",
                fmt::format("{} {} images are asked for, there are {}", count, split.name, split.count()))
        .hint(fmt::format("--count {}", split.count()));
  const ImageSet& images = *split.images;
  const SampleOrder order(split.count(), seed, true);
  std::vector<uint8_t> pixels;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = order.sample(0, i);
    const uint8_t* image = images.image(split.subset.empty() ? at : split.subset[static_cast<size_t>(at)]);
    pixels.insert(pixels.end(), image, image + images.sample_bytes());
  }
  return pixels;
}

}  // namespace lockstep
