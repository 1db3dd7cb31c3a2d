// SPDX-License-Identifier: Apache-2.0
// `lockstep data make captioned_digits DIR`: the data set as files.
#pragma once

#include <cstdint>
#include <string>

namespace lockstep {

struct DigitsRequest {
  std::string folder;  // to be made
  std::string mnist;   // where MNIST lies
  std::string split = "training";
  uint64_t seed = 0;
  int64_t count = 0;
};

// Writes the samples that a job of this seed sees: those of epoch kPlainEpochs in their order, of the next one, and so on. Pictures
// are folder/DIGIT/NUMBER.png; folder/metadata.jsonl has a line for each: file_name, text (its caption), and what the scene
// is. A README.md says whose the digits are. The folder appears all at once. Errors: cannot_create (73) where it is there
// already, io (74), and those of open_dataset.
void make_captioned_digits(const DigitsRequest& request);

}  // namespace lockstep
