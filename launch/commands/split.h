// SPDX-License-Identifier: Apache-2.0
// The images that a model is evaluated on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/job/trained_model.h"
#include "runtime/data/dataset.h"

namespace lockstep {

struct DataChoice {
  std::string split = "test";  // training, validation, test: of the run's job, or half of `path`
  std::string path;            // other images than the job's
  std::string dataset;         // what kind lies there; empty: as the model was trained on
};

struct Split {
  std::string name;
  std::shared_ptr<const SampleSource> images;
  std::vector<int64_t> subset;  // indices into `images`; empty: all
  DatasetConfig config;         // where they are from
  int64_t count() const { return subset.empty() ? images->count() : static_cast<int64_t>(subset.size()); }
};

// As the model takes them: its channels, size and classes (by name). `say`: tells stderr which classes have
// no images, and what is odd about files. Errors: usage (64) for another name, no_input (66) where there is no such data, data (65) for
// images or classes that are not the model's.
Split load_split(const TrainedModel& model, const DataChoice& choice, bool say = true);

// Pixels of so many of its images, each at most once, u8 [count, C, H, W]: those that an epoch of this seed
// begins with. Throws Error: usage (64) where there are fewer.
std::vector<uint8_t> first_images(const Split& split, int64_t count, uint64_t seed);

}  // namespace lockstep
