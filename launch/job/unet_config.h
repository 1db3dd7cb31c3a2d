// SPDX-License-Identifier: Apache-2.0
// A diffusers folder's unet/config.json.
#pragma once

#include <string>

#include "models/spec.h"

namespace lockstep {

// Errors: no_input (66) where there is none, data (65) where it is no JSON, config (78) at file:line:column
// for what is not supported.
UNet2DConfig read_unet_config(const std::string& path);

}  // namespace lockstep
