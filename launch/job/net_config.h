// SPDX-License-Identifier: Apache-2.0
// The config.json of a net, as diffusers and transformers write it.
#pragma once

#include <string>

#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/spec.h"
#include "models/unet2d_condition.h"

namespace lockstep {

// Missing keys have the class's defaults. Errors: no_input (66) E_CONFIG_NONE where there is no file, data
// (65) E_CONFIG_JSON where it is no JSON object, config (78) at file:line:column for an unknown key, a value
// out of range, and for what is not supported.
UNet2DConfig read_unet_config(const std::string& path);
UNet2DConditionConfig read_unet_condition_config(const std::string& path);
AutoencoderKlConfig read_autoencoder_config(const std::string& path);
AutoencoderTinyConfig read_autoencoder_tiny_config(const std::string& path);
// Either of the two, by its `_class_name`.
VaeConfig read_vae_config(const std::string& path);
// A text encoder's, or a whole CLIP's, of which the text encoder is taken. Keys that transformers gives every
// model are ignored.
ClipTextConfig read_clip_text_config(const std::string& path);

}  // namespace lockstep
