// SPDX-License-Identifier: Apache-2.0
// model.json: what a model says of itself, beside its weights in a run, a checkpoint and an exported folder.
//
//   {"format": "lockstep-model", "format_version": 1, "program": "0.2.0 (0123abc)",
//    "model": {...}, "objective": {...}, "sampling": {...}, "hyperparameters": {...},   as a job has them
//    "inputs": {"channels", "height", "width", "dtype", "mean", "std", "resize", "crop", "window"},
//    "outputs": {"classes", "class_names", "no_class_row"},
//    "evaluation": {"batch"},
//    "data": {"dataset", "training", "validation", "test", "tokenizer"},     all but the first: content hashes
//    "weights": {FILE: [SHA-256, ...]}}                         runtime/checkpoint/weights_hash.h
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "launch/job/job.h"
#include "models/diffusion/folder.h"
#include "models/model_description.h"

namespace lockstep {

inline constexpr const char* kModelFile = "model.json";

// What a job trains on images of this shape.
ModelDescription describe(const Job& job, const DatasetShape& training);
// Without "weights". data: content hashes.
nlohmann::ordered_json model_file(const Job& job, const DatasetShape& training,
                                  const std::map<std::string, std::string>& data, const std::string& program);
// Errors: data (65) at file:line:column for what does not belong there, and for a newer version by its
// number.
ModelDescription read_model_file(const std::string& path);

// A diffusers folder, by its own files. Its table of classes has no row for "no class": none of its files
// says so.
ModelDescription describe_folder(const diffusion::FolderFiles& files);

}  // namespace lockstep
