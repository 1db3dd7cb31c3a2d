// SPDX-License-Identifier: Apache-2.0
// What a file is that was taken for a safetensors file.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace lockstep {

struct ForeignFile {
  std::string what;  // "a PyTorch pickle"
  std::string hint;  // how to come by a safetensors file
};

// By its first bytes. nullopt: none of those that people come with.
std::optional<ForeignFile> foreign_file(std::span<const std::byte> bytes);

}  // namespace lockstep
