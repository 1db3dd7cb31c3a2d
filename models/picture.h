// SPDX-License-Identifier: Apache-2.0
// Pictures as a model is shown those that it was not trained on: in its channels, fitted to its size.
#pragma once

#include <span>
#include <string>

#include "models/model_description.h"

namespace lockstep {

// Errors: those of read_image(), and data (65) where the picture's size is not the model's.
Image read_picture(const ModelDescription& model, const std::string& file);
// Of the bytes of such a file; `name` stands for it in errors.
Image decode_picture(const ModelDescription& model, const std::string& name, std::span<const uint8_t> bytes);

}  // namespace lockstep
