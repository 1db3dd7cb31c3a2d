#include "launch/job/overrides.h"

#include <algorithm>

#include "launch/job/keys.h"

namespace lockstep {
namespace {

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> parts;
  while (true) {
    const size_t dot = path.find('.');
    parts.emplace_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

// `lr_schedule: cosine` becomes {name: cosine}, so that a key can be set beside it.
void expand_short_form(Node& node, const std::string& path) {
  for (const Key& key : job_keys()) {
    if (!key.short_form || !key.path.starts_with(path + ".") || node.kind == Node::Kind::map) continue;
    Node map;
    map.kind = Node::Kind::map;
    map.place = node.place;
    map.key = node.key;
    map.key_place = node.key_place;
    node.key = key.path.substr(path.size() + 1);
    map.children.push_back(std::move(node));
    node = std::move(map);
    return;
  }
}

void set_path(Node& root, const std::string& path, Node value) {
  Node* map = &root;
  std::string above;
  const std::vector<std::string> parts = split_path(path);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    above = join_path(above, parts[i]);
    map = &child_of(*map, parts[i], value.place);
    expand_short_form(*map, above);
    if (map->kind != Node::Kind::map) {
      map->kind = Node::Kind::map;
      map->children.clear();
      map->place = map->key_place = value.place;
    }
  }
  Node& node = child_of(*map, parts.back(), value.place);
  value.key = parts.back();
  value.key_place = value.place;
  node = std::move(value);
}

}  // namespace

Node& child_of(Node& map, const std::string& name, const Place& place) {
  for (Node& child : map.children)
    if (child.key == name) return child;
  Node& child = map.children.emplace_back();
  child.kind = Node::Kind::map;
  child.place = child.key_place = place;
  child.key = name;
  return child;
}

Node take_path(Node& root, std::string_view path) {
  Node* map = &root;
  while (true) {
    const size_t dot = path.find('.');
    const auto child = std::find_if(map->children.begin(), map->children.end(),
                                    [&](const Node& node) { return node.key == path.substr(0, dot); });
    if (map->kind != Node::Kind::map || child == map->children.end()) return {};
    if (dot == std::string_view::npos) {
      Node taken = std::move(*child);
      map->children.erase(child);
      return taken;
    }
    map = &*child;
    path.remove_prefix(dot + 1);
  }
}

void apply_overrides(Node& root, const std::vector<std::string>& overrides) {
  for (const std::string& text : overrides) {
    const size_t equals = text.find('=');
    const std::string path = text.substr(0, equals);
    const std::vector<std::string> parts = split_path(path);
    if (equals == std::string::npos || std::find(parts.begin(), parts.end(), "") != parts.end())
      throw Error(Exit::usage, "E_JOB_SET", fmt::format("--set takes KEY.PATH=VALUE, found {}", shown(text)))
          .hint("for example --set hyperparameters.optimizer.lr=0.1");
    if (parts.size() > kMaxJobDepth)
      throw Error(Exit::config, "E_JOB_DEPTH", fmt::format("a key path of more than {} names", kMaxJobDepth))
          .at("job", "--set " + shown(path));
    for (const Exclusive& pair : exclusive_keys()) {
      if (path == pair.first) take_path(root, pair.second);
      if (path == pair.second) take_path(root, pair.first);
    }
    if (path == kBackend) take_path(root, kBackendAlias);
    if (path == kBackendAlias) take_path(root, kBackend);
    set_path(root, path, parse_yaml(std::string_view(text).substr(equals + 1), "--set " + path, false, path));
  }
}

}  // namespace lockstep
