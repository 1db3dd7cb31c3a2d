// SPDX-License-Identifier: Apache-2.0
// Which file of a folder holds its weights, and weights that lie in several files.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "runtime/checkpoint/safetensors.h"

namespace lockstep {

// In this folder "model.safetensors", in its unet/ or itself "diffusion_pytorch_model.safetensors"; where there is none,
// the index of its parts ("….safetensors.index.json"), else a variant ("….fp16.safetensors"). Empty: none of these.
// Errors: data (65) for several variants, which differ; no_permission (77), io (74).
std::string find_weights(const std::string& folder);
// Of a folder of several networks: of text_encoder/ "model.safetensors", of unet/ and vae/ as above, by network.
// Empty: it is no such folder.
std::map<std::string, std::string> find_networks(const std::string& folder);
// The file of another format that stands in their place, as "pytorch_model.bin". Empty: none.
std::string find_foreign_weights(const std::string& folder);

// Hashes of large files take seconds.
enum class Verification {
  at_once,
  in_background  // of files of 256 MB and more; whoever gives out a result awaits it first: SafetensorsFile::await_verified()
};

// A safetensors file, or all files that an index names, as one. What carries a hash is held against it
// (recorded_hash.h, weights_hash.h). Errors: no_input (66), data (65), no_permission (77), io (74).
std::shared_ptr<const SafetensorsFile> open_weights(const std::string& path,
                                                    Verification verification = Verification::at_once);

// The networks' files as one, which is known by FOLDER/model_index.json; tensors are called NETWORK.NAME.
std::shared_ptr<const SafetensorsFile> open_networks(const std::string& folder,
                                                     const std::map<std::string, std::string>& networks,
                                                     Verification verification = Verification::at_once);

// The file beside an index that holds each tensor: its "weight_map". Errors: data (65).
std::map<std::string, std::string> parse_weight_map(std::string_view text, const std::string& path);

}  // namespace lockstep
