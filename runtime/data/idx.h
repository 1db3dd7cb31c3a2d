// SPDX-License-Identifier: Apache-2.0
// The IDX format (Y. LeCun, "The MNIST database", "file formats"): a big-endian magic number 00 00 type rank,
// a 32-bit size per dimension, then the elements. Images: 0x00000803 [count, height, width]; labels:
// 0x00000801.
#pragma once

#include <string>

#include "runtime/data/dataset.h"

namespace lockstep {

struct IdxPaths {
  std::string images, labels;
};
// prefix: "train" or "t10k". Error no_input (66) with the command that gets `dataset`.
IdxPaths find_idx(const std::string& folder, const std::string& prefix, const std::string& dataset);
// The labels file beside an images file.
IdxPaths find_idx_labels(const std::string& images);

// classes: labels are below it; 0: the largest label + 1.
// Whether what follows the headers is as long as they say. Reads it where it is compressed. Errors: data (65).
void check_idx_size(const IdxPaths& paths);
ImageSet read_idx(const IdxPaths& paths, int64_t classes);
DatasetShape probe_idx(const IdxPaths& paths, int64_t classes, std::vector<int32_t>& labels);

}  // namespace lockstep
