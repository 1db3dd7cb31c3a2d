// SPDX-License-Identifier: Apache-2.0
// manifest.json of a checkpoint: what its other files must hash to.
//
//   {"files": {"model.safetensors": {"bytes": N, "header": HASH, "tensors": {NAME: HASH, ...}},
//              "state.safetensors": {...},
//              "meta.json": {"bytes": N, "sha256": HASH}},
//    "format": "lockstep-checkpoint-1",
//    "sha256": HASH of every byte of this file before this key}
// A safetensors file is its header and its tensors back to back, so these hashes cover each byte of it once.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/checkpoint/safetensors.h"

namespace lockstep {

nlohmann::json describe_safetensors(const SafetensorsWriter& writer, std::span<const StoredTensor> tensors);
nlohmann::json describe_text(std::string_view text);
// The manifest's text, with its seal.
std::string seal_manifest(const nlohmann::json& files);

// Reads manifest.json and returns its "files". Errors: data (65).
nlohmann::json read_manifest(const std::string& path);
// Errors: data (65) at file and tensor with the expected and the found hash or size.
void verify_safetensors(const nlohmann::json& files, const std::string& name, const SafetensorsFile& file);
void verify_text(const nlohmann::json& files, const std::string& name, const MappedFile& file,
                 const std::string& path);

}  // namespace lockstep
