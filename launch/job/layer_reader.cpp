// SPDX-License-Identifier: Apache-2.0
// The list of layers: words and one-key maps.
#include <unordered_map>

#include "launch/job/reader.h"

namespace lockstep::job {
namespace {

const LayerWord& layer_word(const std::string& word, const Place& place, const std::string& path) {
  if (const LayerWord* row = find_layer_word(word)) return *row;
  std::vector<std::string> words;
  for (const LayerWord& row : layer_words()) words.push_back(row.word);
  const std::string best = nearest(word, words);
  throw job_error(place, path, "E_JOB_UNKNOWN_KEY", fmt::format("unknown layer {}", shown(word)))
      .hint(fmt::format("nearest valid layer: {}, for example {}", best, find_layer_word(best)->example));
}

}  // namespace

LayerSpec Reader::read_layer(const Node& item, const std::string& path) {
  Node keys;
  keys.kind = Node::Kind::map;
  keys.place = item.place;
  std::string name;
  if (item.kind == Node::Kind::scalar) {
    name = item.text;
  } else if (item.kind == Node::Kind::map && item.children.size() == 1) {
    name = item.children[0].key;
  } else if (item.kind == Node::Kind::map && item.children.size() > 1) {
    throw job_error(item.children[1].key_place, path, "E_JOB_TYPE",
                    fmt::format("a layer is one word with its keys below it, found {} and {} side by side",
                                shown(item.children[0].key), shown(item.children[1].key)))
        .hint("for example - conv2d: {out_channels: 16, kernel: 3}");
  } else {
    throw job_error(item.place, path, "E_JOB_TYPE",
                    fmt::format("expected a layer, found {}", item.kind_name()))
        .hint("for example relu, or conv2d: {out_channels: 16, kernel: 3}");
  }

  const LayerWord& word = layer_word(name, item.place, path);
  const std::string inner = join_path(path, word.word);
  LayerSpec spec = word.prototype;
  spec.where = item.place.text();
  if (item.kind == Node::Kind::map) {
    const Node& value = item.children[0];
    if (value.kind == Node::Kind::null)
      throw job_error(value.place, inner, "E_JOB_TYPE", "no value given").hint("for example " + word.example);
    if (value.kind == Node::Kind::map) {
      keys = value;
    } else {
      // The short form stands for the one key that has it.
      const Key* key = nullptr;
      for (const Key& row : word.keys)
        if (row.short_form) key = &row;
      if (!key)
        throw job_error(value.place, inner, "E_JOB_TYPE",
                        fmt::format("expected a map, found {}", value.kind_name()))
            .hint("for example " + word.example);
      keys.children.push_back(value);
      keys.children[0].key = key->path;
    }
  }
  read(word.keys, keys, &spec, inner);
  return spec;
}

std::vector<LayerSpec> Reader::read_layers(const Node& node, const std::string& path) {
  // So that the resolved job, which writes short forms out, stays within kMaxJobDepth.
  constexpr int kDeepest = 16;
  if (list_depth_ == kDeepest + 1)
    throw job_error(node.place, path, "E_JOB_DEPTH",
                    fmt::format("residuals nested deeper than {}", kDeepest));
  ++list_depth_;
  std::vector<LayerSpec> layers;
  std::unordered_map<std::string, size_t> names;
  for (size_t i = 0; i < node.children.size(); ++i) {
    const std::string item = fmt::format("{}[{}]", path, i);
    layers.push_back(read_layer(node.children[i], item));
    const LayerSpec& spec = layers.back();
    const auto [other, fresh] = names.emplace(spec.name.empty() ? std::to_string(i) : spec.name, i);
    if (!fresh)
      throw job_error(node.children[i].place, item, "E_JOB_CONFLICT",
                      fmt::format("layer {} has the name {} too", other->second, shown(other->first)))
          .hint("names are unique in their list; a layer without a name has its index");
  }
  --list_depth_;
  return layers;
}

}  // namespace lockstep::job
