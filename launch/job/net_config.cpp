// SPDX-License-Identifier: Apache-2.0
#include "launch/job/net_config.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "launch/job/keys.h"
#include "launch/job/reader.h"
#include "models/unet2d.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

using nlohmann::json;
using std::string;

// What one class of nets has in its config.json.
struct NetClass {
  const char* name;                   // the class, as `_class_name` has it
  const char* error;                  // the identifier of what is not supported
  const job::Table& keys;             // slots take its configuration
  std::map<string, json> fixed = {};  // keys that may have this value alone; for false null is the same
  std::set<string> ignored = {};      // keys that change nothing here
};

// The file's tree with the names that have no meaning here taken out, and the same as JSON.
class ConfigFile {
 public:
  explicit ConfigFile(string path) : path_(std::move(path)) {
    if (!is_file(path_))
      throw Error(Exit::no_input, "E_CONFIG_NONE", "no configuration here").at("file", path_);
    const string text = read_text_file(path_, job::kMaxJobBytes);
    json_ = json::parse(text, nullptr, false);
    if (!json_.is_object()) throw Error(Exit::data, "E_CONFIG_JSON", "is no JSON object").at("file", path_);
    root_ = job::parse_yaml(text, path_, true);  // JSON is YAML
  }

  // The map of that key instead of the whole.
  void descend(const string& key, const char* id) {
    const job::Node* inner = root_.find(key);
    if (!inner || inner->kind != job::Node::Kind::map)
      throw job::job_error(root_.place, key, id, "missing map");
    const job::Node map = *inner;
    root_ = map;
    json_ = json(json_.at(key));
  }

  const string& path() const { return path_; }
  // A string's value, or "" where there is none.
  string text_of(const string& key) const {
    const auto found = json_.find(key);
    return found != json_.end() && found->is_string() ? found->get<string>() : "";
  }
  [[noreturn]] void refuse(const char* id, const string& key, const string& problem) const {
    const job::Node* node = root_.find(key);
    throw job::job_error(node ? node->place : root_.place, key, id, problem);
  }
  template <class Unwanted>
  void drop(const Unwanted& unwanted) {
    std::erase_if(root_.children, unwanted);
  }

  void read(const NetClass& net, void* config) {
    if (const string name = text_of("_class_name"); !name.empty() && name != net.name)
      refuse(net.error, "_class_name", fmt::format("is a {}, expected a {}", name, net.name));
    for (const auto& [key, value] : net.fixed) {
      const auto found = json_.find(key);
      if (found == json_.end() || *found == value || (value == false && found->is_null())) continue;
      refuse(net.error, key, fmt::format("{} is not supported; {} is", json_text(*found), json_text(value)));
    }
    drop([&](const job::Node& n) {
      return n.key[0] == '_' || net.fixed.contains(n.key) || net.ignored.contains(n.key) ||
             is_false(net, n, config);
    });
    job::Reader(parent_folder(absolute_path(path_))).read(net.keys, root_, config, "");
  }

 private:
  // null where true or false is expected, which Python takes for false.
  static bool is_false(const NetClass& net, const job::Node& n, void* config) {
    if (n.kind != job::Node::Kind::null) return false;
    for (const job::Key& key : net.keys)
      if (key.path == n.key) {
        const job::Slot slot = key.slot(config);
        if (auto* const* flag = std::get_if<bool*>(&slot)) return **flag = false, true;
      }
    return false;
  }

  string path_;
  json json_;
  job::Node root_;
};

constexpr job::Range kNetWidth = {1, 65536};

const NetClass& condition_class() {
  static const NetClass net = {"UNet2DConditionModel",
                               "E_UNET",
                               job::unet_condition_keys(),
                               {{"addition_time_embed_dim", nullptr},
                                {"attention_type", "default"},
                                {"class_embed_type", nullptr},
                                {"class_embeddings_concat", false},
                                {"conv_in_kernel", 3},
                                {"conv_out_kernel", 3},
                                {"cross_attention_norm", nullptr},
                                {"dual_cross_attention", false},
                                {"encoder_hid_dim", nullptr},
                                {"encoder_hid_dim_type", nullptr},
                                {"mid_block_only_cross_attention", nullptr},
                                {"num_attention_heads", nullptr},
                                {"num_class_embeds", nullptr},
                                {"only_cross_attention", false},
                                {"projection_class_embeddings_input_dim", nullptr},
                                {"resnet_out_scale_factor", 1},
                                {"resnet_skip_time_act", false},
                                {"reverse_transformer_layers_per_block", nullptr},
                                {"time_cond_proj_dim", nullptr},
                                {"time_embedding_act_fn", nullptr},
                                {"time_embedding_type", "positional"},
                                {"timestep_post_act", nullptr}}};
  return net;
}

const NetClass& autoencoder_class() {
  static const NetClass net = {
      "AutoencoderKL",
      "E_VAE",
      job::autoencoder_keys(),
      {{"latents_mean", nullptr}, {"latents_std", nullptr}, {"shift_factor", nullptr}},
      {"force_upcast"}};  // of half precision, whose range images leave
  return net;
}

#define TINY_FIELD(member) \
  [](void* object) -> job::Slot { return &static_cast<AutoencoderTinyConfig*>(object)->member; }

const NetClass& autoencoder_tiny_class() {
  static const job::Table keys = {
      {.path = "in_channels", .slot = TINY_FIELD(in_channels), .example = "3", .range = kNetWidth},
      {.path = "out_channels", .slot = TINY_FIELD(out_channels), .example = "3", .range = kNetWidth},
      {.path = "encoder_block_out_channels",
       .slot = TINY_FIELD(encoder_block_out_channels),
       .example = "[64, 64]",
       .range = kNetWidth},
      {.path = "decoder_block_out_channels",
       .slot = TINY_FIELD(decoder_block_out_channels),
       .example = "[64, 64]",
       .range = kNetWidth},
      {.path = "num_encoder_blocks",
       .slot = TINY_FIELD(num_encoder_blocks),
       .example = "[1, 3]",
       .range = {0, 64}},
      {.path = "num_decoder_blocks",
       .slot = TINY_FIELD(num_decoder_blocks),
       .example = "[3, 1]",
       .range = {0, 64}},
      {.path = "act_fn",
       .slot = TINY_FIELD(act_fn),
       .example = "relu",
       .choices = {"relu", "silu", "swish", "gelu"}},
      {.path = "latent_channels", .slot = TINY_FIELD(latent_channels), .example = "4", .range = kNetWidth},
      {.path = "scaling_factor",
       .slot = TINY_FIELD(scaling_factor),
       .example = "1",
       .range = {0, 1e6, true, false}},
  };
  static const NetClass net = {
      "AutoencoderTiny",
      "E_VAE",
      keys,
      {{"shift_factor", 0}, {"upsample_fn", "nearest"}, {"upsampling_scaling_factor", 2}},
      {"block_out_channels",                  // the decoder's, once more
       "force_upcast",                        // of half precision
       "latent_magnitude", "latent_shift"}};  // of latents that are kept as bytes
  return net;
}

const NetClass& clip_class() {
  static const NetClass net = {"CLIPTextModel",
                               "E_TEXT_ENCODER",
                               job::clip_text_keys(),
                               {{"attention_dropout", 0}, {"use_attention_mask", false}}};
  return net;
}

template <class Config>
Config read_net(const NetClass& net, ConfigFile&& file) {
  Config config;
  file.read(net, &config);
  try {
    check(config);
  } catch (Error& e) {
    e.add_place("file", file.path());
    throw;
  }
  return config;
}

}  // namespace

UNet2DConfig read_unet_config(const string& path) {
  // The last is the size of a table that positional embeddings do not have.
  static const NetClass net = {"UNet2DModel", "E_UNET", job::unet_keys(), {}, {"num_train_timesteps"}};
  return read_net<UNet2DConfig>(net, ConfigFile(path));
}

UNet2DConditionConfig read_unet_condition_config(const string& path) {
  return read_net<UNet2DConditionConfig>(condition_class(), ConfigFile(path));
}

AutoencoderKlConfig read_autoencoder_config(const string& path) {
  return read_net<AutoencoderKlConfig>(autoencoder_class(), ConfigFile(path));
}

AutoencoderTinyConfig read_autoencoder_tiny_config(const string& path) {
  return read_net<AutoencoderTinyConfig>(autoencoder_tiny_class(), ConfigFile(path));
}

VaeConfig read_vae_config(const string& path) {
  if (ConfigFile(path).text_of("_class_name") == "AutoencoderTiny")
    return {read_autoencoder_tiny_config(path)};
  return {read_autoencoder_config(path)};
}

ClipTextConfig read_clip_text_config(const string& path) {
  const NetClass& net = clip_class();
  ConfigFile file(path);
  if (file.text_of("model_type") == "clip") file.descend("text_config", net.error);
  if (const string type = file.text_of("model_type"); !type.empty() && type != "clip_text_model")
    file.refuse(net.error, "model_type", fmt::format("{} is not supported; clip_text_model is", type));
  file.drop([&](const job::Node& n) {
    return std::ranges::none_of(net.keys, [&](const job::Key& key) { return key.path == n.key; }) &&
           !net.fixed.contains(n.key);
  });
  return read_net<ClipTextConfig>(net, std::move(file));
}

}  // namespace lockstep
