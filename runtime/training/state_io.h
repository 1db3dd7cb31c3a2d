// SPDX-License-Identifier: Apache-2.0
// Between a model's flat arrays and named tensors on disk.
#pragma once

#include <span>
#include <vector>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/training/model_state.h"

namespace lockstep {

// Parameters and buffers under PyTorch's names in PyTorch's order, batch norm's num_batches_tracked (I64
// scalars) included: what load_state_dict(strict=True) takes. The views live as long as the model.
std::vector<StoredTensor> model_tensors(const ModelState& model);
// The same with the parameters' moving average in their place, where there is one: the weights to use.
std::vector<StoredTensor> averaged_tensors(const ModelState& model);
// Those of one network (GraphBuilder::set_network), under the names that they have in it. "": all.
std::vector<StoredTensor> of_network(std::span<const StoredTensor> tensors, const std::string& network);
// What else training goes on from, one tensor per trained parameter: optimizer state ("momentum.conv1.weight", or
// "m." and "v."), and beside an average the parameters themselves ("raw.").
std::vector<StoredTensor> optimizer_tensors(const ModelState& model);

// F16, BF16 and F64 become F32 (the nearest, F16 and BF16 exactly). A prefix that wrappers put before all names (module.,
// _orig_mod., ema_model.) is left out with a word in the log; num_batches_tracked may be missing. Throws Error(Exit::data,
// "E_TENSORS") naming each tensor that is missing, surplus or of another shape or dtype; nothing is written then.
void load_model_tensors(ModelState& model, const SafetensorsFile& file, const std::string& path);
// The same, but parameters that are F32 in the file stay there (ModelState::place): it must outlive the model, and nobody may
// write to it meanwhile.
void place_model_tensors(ModelState& model, const SafetensorsFile& file, const std::string& path);
void load_averaged_tensors(ModelState& model, const SafetensorsFile& file, const std::string& path);
void load_optimizer_tensors(ModelState& model, const SafetensorsFile& file, const std::string& path);

// The first F32 tensor that holds an infinity or NaN; null: none does.
const StoredTensor* first_non_finite(std::span<const StoredTensor> tensors);
// Training does not start from such: error data (65), "E_NOT_FINITE", naming the file and the tensor.
void expect_finite_weights(std::span<const StoredTensor> tensors, const std::string& file);
// What load_model_tensors would say, by names, dtypes and shapes alone.
void expect_model_tensors(const ParameterTable& table, const SafetensorsFile& file, const std::string& path);
// What load_model_tensors and then expect_finite_weights would say, without a model.
void check_model_tensors(const ParameterTable& table, const SafetensorsFile& file, const std::string& path);

}  // namespace lockstep
