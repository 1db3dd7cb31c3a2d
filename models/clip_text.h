// SPDX-License-Identifier: Apache-2.0
// CLIP's text encoder, transformers' CLIPTextModel (version 5): its tensor names, defaults and arithmetic, so
// that weights go both ways. Source: Radford et al.: "Learning transferable visual models from natural
// language supervision" (arXiv 2103.00020).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/graph/program.h"

namespace lockstep {

// Under transformers' own names, with its defaults.
struct ClipTextConfig {
  int64_t vocab_size = 49408;
  int64_t hidden_size = 512;
  int64_t intermediate_size = 2048;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 8;
  int64_t max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";  // or gelu, the exact one
  double layer_norm_eps = 1e-5;
  double initializer_factor = 1;
};

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
