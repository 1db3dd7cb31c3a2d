// SPDX-License-Identifier: Apache-2.0
// Between a model's flat arrays and named tensors on disk.
#pragma once

#include <vector>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/training/model_state.h"

namespace lockstep {

// Parameters and buffers under PyTorch's names in PyTorch's order, batch norm's num_batches_tracked (I64
// scalars) included: what load_state_dict(strict=True) takes. The views live as long as the model.
std::vector<StoredTensor> model_tensors(const ModelState& model);
// The same with the parameters' moving average in their place, where there is one: the weights to use.
std::vector<StoredTensor> averaged_tensors(const ModelState& model);
// What else training goes on from, one tensor per parameter: optimizer state ("momentum.conv1.weight", or
// "m." and "v."), and beside an average the parameters themselves ("raw.").
std::vector<StoredTensor> optimizer_tensors(const ModelState& model);

// Throws Error(Exit::data, "E_TENSORS") naming each tensor that is missing, surplus or of another shape or
// dtype.
void load_model_tensors(ModelState& model, const SafetensorsFile& file, const std::string& path);
void load_averaged_tensors(ModelState& model, const SafetensorsFile& file, const std::string& path);
void load_optimizer_tensors(ModelState& model, const SafetensorsFile& file, const std::string& path);

}  // namespace lockstep
