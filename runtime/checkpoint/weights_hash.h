// SPDX-License-Identifier: Apache-2.0
// The weights of a run are known by their hash: "weights" in the model.json beside them,
//   {"weights": {"model.safetensors": ["SHA-256 of the file", ...]}}
// with two hashes while the file is replaced, so that whatever a crash leaves behind is one of them.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "runtime/checkpoint/safetensors.h"

namespace lockstep {

// Writes FOLDER/FILE and FOLDER/model.json, which is `description` with the hash. `write_weights` writes the
// tensors to that file, and whatever goes with them. `previous`: the hash of the file that it replaces, where that is
// known; "": a file there is read. Returns the hash. Errors: cannot_create (73), io (74).
std::string export_described(const std::string& folder, const std::string& file,
                             std::span<const StoredTensor> tensors, nlohmann::ordered_json description,
                             const std::string& previous, const std::function<void()>& write_weights);

// Tells whether two files hold the same weights. Many times as fast as SHA-256, and no protection from malice.
std::string hash_of_weights(const SafetensorsFile& file);

// Holds a file against the hash that the model.json in its folder, or the one above, has for it; nothing
// where there is none. Error data (65), "E_WEIGHTS_HASH".
void verify_weights(const SafetensorsFile& file);

}  // namespace lockstep
