// SPDX-License-Identifier: Apache-2.0
// The JSON header of a safetensors file, read strictly: {"__metadata__": {string: string}, name: {"dtype",
// "shape", "data_offsets"}}, nothing else, nothing twice.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace lockstep {

struct SafetensorsHeader {
  struct Tensor {
    std::string name, dtype;
    std::vector<int64_t> shape;  // no negative numbers
    uint64_t begin = 0, end = 0;
  };
  std::vector<Tensor> tensors;  // as listed
  std::map<std::string, std::string> metadata;
};

// `json` begins at byte `offset` of the file. Errors: data (65) at file and offset or tensor.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> json, size_t offset,
                                           const std::string& path);

}  // namespace lockstep
