// SPDX-License-Identifier: Apache-2.0
// The weights of a run are known by their hash: "weights" in the model.json beside them,
//   {"weights": {"model.safetensors": ["SHA-256 of the file", ...]}}
// with two hashes while the file is replaced, so that whatever a crash leaves behind is one of them.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "runtime/checkpoint/safetensors.h"

namespace lockstep {

struct ExportedWeights {
  std::string file;  // below the folder
  std::vector<StoredTensor> tensors;
};
using FileHashes = std::map<std::string, std::string>;  // by the file's name below the folder
// Writes the files, and FOLDER/model.json, which is `description` with their hashes. `previous`: hashes of the
// files that are replaced, where they are known; others are read. Returns the hashes. Errors: cannot_create
// (73), io (74).
FileHashes export_described(const std::string& folder, std::span<const ExportedWeights> files,
                            nlohmann::ordered_json description, const FileHashes& previous);

// Tells whether two files hold the same weights. Many times as fast as SHA-256, and no protection from malice.
std::string hash_of_weights(const SafetensorsFile& file);

// Holds a file against the hash that the model.json in its folder, or the one above, has for it; nothing
// where there is none. Error data (65), "E_WEIGHTS_HASH".
void verify_weights(const SafetensorsFile& file);

}  // namespace lockstep
