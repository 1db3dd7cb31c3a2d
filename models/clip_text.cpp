// SPDX-License-Identifier: Apache-2.0
#include "models/clip_text.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/blocks.h"
#include "models/config_check.h"

namespace lockstep {
namespace {

using std::string;

// Deviations of the initial weights (CLIPPreTrainedModel._init_weights); biases are 0.
struct ClipInits {
  explicit ClipInits(const ClipTextConfig& k) {
    const double factor = k.initializer_factor, width = static_cast<double>(k.hidden_size);
    const double depth = std::sqrt(2.0 * static_cast<double>(k.num_hidden_layers));
    embedding = normal_init(0.02 * factor);
    projection = normal_init(factor / std::sqrt(width));        // out_proj
    residual = normal_init(factor / std::sqrt(width) / depth);  // q_proj, k_proj, v_proj, fc2
    hidden = normal_init(factor / std::sqrt(2 * width));        // fc1
  }
  Init embedding, projection, residual, hidden;
};

// One layer: x + attention, then + mlp, each of a layer norm. x [N, T, C] -> the same.
ValueId encoder_layer(GraphBuilder& b, const ClipTextConfig& k, const ClipInits& inits, ValueId x,
                      const string& name) {
  const Init zero = constant_init(0);
  b.set_block(name);
  const auto add = [&](ValueId change) {
    b.set_scope(name);
    x = b.elementwise(Elt::add, {change, x});
  };
  const string self = name + ".self_attn";
  const ValueId normed = layer_norm(b, x, name + ".layer_norm1", k.layer_norm_eps);
  const auto project = [&](const char* part) {
    return linear(b, normed, self + part, k.hidden_size, inits.residual, zero);
  };
  const ValueId key = project(".k_proj"), value = project(".v_proj"), query = project(".q_proj");
  b.set_scope(self);
  const ValueId seen = attention(b, query, key, value, k.num_attention_heads, true);
  add(linear(b, seen, self + ".out_proj", k.hidden_size, inits.projection, zero));

  const ValueId narrow = layer_norm(b, x, name + ".layer_norm2", k.layer_norm_eps);
  const ValueId wide = linear(b, narrow, name + ".mlp.fc1", k.intermediate_size, inits.hidden, zero);
  const ValueId active = activate(b, wide, activation_of(k.hidden_act));
  add(linear(b, active, name + ".mlp.fc2", k.hidden_size, inits.residual, zero));
  b.set_block("");
  return x;
}

}  // namespace

void check(const ClipTextConfig& k) {
  const ConfigCheck check("E_TEXT_ENCODER");
  check.expect_choice("hidden_act", k.hidden_act, {"quick_gelu", "gelu"});
  check.expect_divides("num_attention_heads", k.num_attention_heads, "heads", k.hidden_size);
}

ValueId clip_text(const ClipTextConfig& k, ModelContext& context, ValueId tokens) {
  GraphBuilder& b = context.builder;
  const Shape& in = b.spec(tokens).shape;
  if (in.rank() != 2 || in[1] > k.max_position_embeddings)
    throw Error(
        Exit::config, "E_SHAPE",
        fmt::format("the text encoder takes tokens [N, T], at most {} (max_position_embeddings), got {}",
                    k.max_position_embeddings, in.text()));
  const ClipInits inits(k);
  const string root = "text_model", embeddings = root + ".embeddings";
  b.set_scope(embeddings);
  const ValueId table =
      b.parameter(embeddings + ".token_embedding.weight", {k.vocab_size, k.hidden_size}, inits.embedding);
  const ValueId positions = b.parameter(embeddings + ".position_embedding.weight",
                                        {k.max_position_embeddings, k.hidden_size}, inits.embedding);
  ValueId x =
      b.add1("position_embedding", NoParams{}, {b.add1("embedding", NoParams{}, {table, tokens}), positions});
  for (int64_t i = 0; i < k.num_hidden_layers; ++i)
    x = encoder_layer(b, k, inits, x, fmt::format("{}.encoder.layers.{}", root, i));
  return layer_norm(b, x, root + ".final_layer_norm", k.layer_norm_eps);
}

nlohmann::ordered_json to_json(const ClipTextConfig& k) {
  return {{"architectures", {"CLIPTextModel"}},
          {"attention_dropout", 0.0},
          {"hidden_act", k.hidden_act},
          {"hidden_size", k.hidden_size},
          {"initializer_factor", k.initializer_factor},
          {"intermediate_size", k.intermediate_size},
          {"layer_norm_eps", k.layer_norm_eps},
          {"max_position_embeddings", k.max_position_embeddings},
          {"model_type", "clip_text_model"},
          {"num_attention_heads", k.num_attention_heads},
          {"num_hidden_layers", k.num_hidden_layers},
          {"vocab_size", k.vocab_size}};
}

}  // namespace lockstep
