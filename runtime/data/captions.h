// SPDX-License-Identifier: Apache-2.0
// Captions of pictures, one or several each: in metadata.jsonl, as Hugging Face's datasets reads it, or in a text file beside
// each picture.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/data/dataset.h"

namespace lockstep {

struct CaptionedFiles {
  std::vector<std::string> files;                  // pictures
  std::vector<std::vector<std::string>> captions;  // of each, at least one
};

inline constexpr const char* kMetadataName = "metadata.jsonl";

// folder/metadata.jsonl: a JSON object a line, with `file_name`, a path below the folder, and captions in `column`, a string or
// a list of them. Files stand in the order of lines. Errors: data (65) naming file, line and column.
CaptionedFiles read_metadata(const std::string& folder, const std::string& column);

// The text of x.txt for a picture x.png, without white space at its ends.
std::string caption_file_of(const std::string& picture);
// Error data (65) where there is none, or where it is empty or no UTF-8.
std::string read_caption_file(const std::string& picture);

// Why `folder` has no captions: no_input (66), with a hint that names what looks like a misspelt metadata.jsonl.
Error no_captions(const std::string& folder);

// "a photo of a {}" with each sample's class name for {}. Error config (78) where there is no {}, or there are no classes.
void caption_by_class(ImageSet& set, const std::string& pattern);

// The caption that a sample is shown with in an epoch of training: one of its list, or "" with probability `dropout`. A pure
// function of its arguments. The set has captions; i is the sample's place in it.
std::string caption_of(const SampleSource& set, int64_t i, uint64_t seed, int64_t epoch, double dropout);

}  // namespace lockstep
