// SPDX-License-Identifier: Apache-2.0
// CLIP's text encoder, transformers' CLIPTextModel (version 5): its tensor names, defaults and arithmetic, so
// that weights go both ways. Source: Radford et al.: "Learning transferable visual models from natural
// language supervision" (arXiv 2103.00020).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "models/spec.h"
#include "runtime/graph/program.h"

namespace lockstep {

// Throws Error(Exit::config, "E_TEXT_ENCODER") naming the key and its values where the configuration is none
// that can be built.
void check(const ClipTextConfig& config);
// last_hidden_state f32 [N, T, hidden_size], after the final layer norm, of tokens i32 [N, T], padded ones
// among them; a token sees those before it. T is at most max_position_embeddings, else Error config (78)
// E_SHAPE. Tensors are named "text_model...." as transformers 4 and pretrained files have them.
ValueId clip_text(const ClipTextConfig& config, ModelContext& context, ValueId tokens);
// text_encoder/config.json, as transformers reads it.
nlohmann::ordered_json to_json(const ClipTextConfig& config);

}  // namespace lockstep
