// SPDX-License-Identifier: Apache-2.0
// The images of a job by what they are for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/job/job.h"
#include "runtime/data/dataset.h"

namespace lockstep {

struct Split {
  std::string name;  // training, validation, test
  std::shared_ptr<const ImageSet> images;
  std::vector<int64_t> subset;  // indices into `images`; empty: all
  int64_t count() const { return subset.empty() ? images->count() : static_cast<int64_t>(subset.size()); }
};

// As the model sees them: of images of which training cuts random windows, the middle. Throws Error: usage
// (64) for another name, no_input (66) where the job has no such data, and what load_dataset throws. `run`:
// the folder whose job it is, for messages.
Split load_split(const Job& job, const std::string& name, const std::string& run);

// Pixels of so many of its images, each at most once, u8 [count, C, H, W]: those that an epoch of this seed
// begins with. Throws Error: usage (64) where there are fewer.
std::vector<uint8_t> first_images(const Split& split, int64_t count, uint64_t seed);

}  // namespace lockstep
