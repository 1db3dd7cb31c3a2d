// SPDX-License-Identifier: Apache-2.0
// Checkpoints: canonical (whole tensors under PyTorch's names, whatever the rank count) and all-or-nothing.
//
//   RUN/checkpoints/step-00000420/
//     model.safetensors    parameters and buffers under PyTorch's names
//     state.safetensors    optimizer state, one tensor a parameter: "momentum.conv1.weight"; "m.", "v."
//     model.json           what the model is
//     tokenizer/           of a model that reads text
//     meta.json            step, epoch, resolved job, hashes and classes of its data, what changed when it was resumed, kernel
//                          table, best metric so far, state of the rule to stop by, bit_exact
//     manifest.json        SHA-256 of meta.json and model.json, of every tensor and of the rest of both files; sealed by one of
//                          itself
// Written under a temporary name, each file and the folder fsynced, then renamed and the parent fsynced: a
// checkpoint that can be seen is whole.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "runtime/checkpoint/find_weights.h"
#include "runtime/checkpoint/safetensors.h"

namespace lockstep {

struct CheckpointContents {
  std::vector<StoredTensor> model;
  std::vector<StoredTensor> state;
  nlohmann::json meta;                 // has "step"
  nlohmann::ordered_json description;  // model.json; null: none is written
  // Writes more files into the folder, whose hashes the description has.
  std::function<void(const std::string& folder)> write_beside = [](const std::string&) {};
};

// The folder's name below RUN/checkpoints: "step-00000420".
std::string checkpoint_name(int64_t step);

// Errors: io (74) and cannot_create (73); what was there before stays intact, the temporary folder is
// removed. Returns the folder's path. Of the checkpoints up to this step keeps the newest `keep` (0: all)
// and, beside them, the folder named by `protect` (the best one; empty: none), and removes the others. Later
// ones stay: a run that was resumed from before them overwrites them when it gets there. The caller holds the
// run folder's lock.
std::string write_checkpoint(const std::string& run_folder, const CheckpointContents& contents, int keep,
                             const std::string& protect);

struct LoadedCheckpoint {
  std::string folder;
  std::shared_ptr<const SafetensorsFile> model, state;
  nlohmann::json meta;
};
// Reads one folder and verifies every hash. Errors: no_input (66), data (65): tensor, expected and found
// hash.
LoadedCheckpoint load_checkpoint(const std::string& folder);
// The newest checkpoint of a run that verifies. Damaged newer ones are reported through `warn` and passed
// over; if all are damaged the newest one's error is thrown; none there: nullopt.
std::optional<LoadedCheckpoint> load_newest_checkpoint(const std::string& run_folder,
                                                       const std::function<void(const std::string&)>& warn);
// Folders of complete checkpoints, oldest first.
std::vector<std::string> list_checkpoints(const std::string& run_folder);

// Weights to start from: a safetensors file, an index of several, a checkpoint, a run folder (its model.safetensors,
// else its newest good checkpoint, see above) or a diffusers folder (find_weights.h). Errors: no_input (66), data (65),
// no_permission (77), io (74). A checkpoint is always verified at once.
std::shared_ptr<const SafetensorsFile> open_model(const std::string& path,
                                                  const std::function<void(const std::string&)>& warn = {},
                                                  Verification verification = Verification::at_once);
// Weights as they are laid out in a file: what PyTorch's loaders look for is in its metadata.
SafetensorsWriter model_writer(std::span<const StoredTensor> tensors);
// Weights as one file, replaced atomically. Errors: cannot_create (73), io (74).
void export_model(const std::string& file, std::span<const StoredTensor> tensors);

}  // namespace lockstep
