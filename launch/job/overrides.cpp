// SPDX-License-Identifier: Apache-2.0
#include "launch/job/overrides.h"

#include <algorithm>

#include "launch/job/keys.h"

namespace lockstep::job {
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

Node* find_child(Node& map, std::string_view name) {
  if (map.kind != Node::Kind::map) return nullptr;
  for (Node& child : map.children)
    if (child.key == name) return &child;
  return nullptr;
}

// Makes the maps on the way. What stands there and is no map is replaced by one, which the reader then
// refuses if it doesn't belong there.
void set_path(Node& root, const std::vector<std::string>& parts, Node value) {
  Node* map = &root;
  for (const std::string& name : parts) {
    Node* child = find_child(*map, name);
    if (!child) {
      child = &map->children.emplace_back();
      child->key = name;
    }
    const bool last = &name == &parts.back();
    if (last || child->kind != Node::Kind::map) {
      Node fresh;
      fresh.kind = Node::Kind::map;
      fresh.place = value.place;
      if (last) fresh = std::move(value);
      fresh.key = name;
      fresh.key_place = fresh.place;
      *child = std::move(fresh);
    }
    map = child;
  }
}

}  // namespace

void expand_short_forms(Node& root) {
  for (const Key& key : job_keys()) {
    if (!key.short_form) continue;
    const std::vector<std::string> parts = split_path(key.path);
    Node* node = &root;
    for (size_t i = 0; node && i + 1 < parts.size(); ++i) node = find_child(*node, parts[i]);
    if (!node || node->kind == Node::Kind::map || node->kind == Node::Kind::null) continue;
    Node map;
    map.kind = Node::Kind::map;
    map.place = node->place;
    map.key = node->key;
    map.key_place = node->key_place;
    node->key = parts.back();
    map.children.push_back(std::move(*node));
    *node = std::move(map);
  }
}

Node take_path(Node& root, std::string_view path) {
  Node* map = &root;
  while (true) {
    const size_t dot = path.find('.');
    Node* child = find_child(*map, path.substr(0, dot));
    if (!child) return {};
    if (dot == std::string_view::npos) {
      Node taken = std::move(*child);
      map->children.erase(map->children.begin() + (child - map->children.data()));
      return taken;
    }
    map = child;
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
      if ((path + ".").starts_with(pair.first + ".")) take_path(root, pair.second);
      if ((path + ".").starts_with(pair.second + ".")) take_path(root, pair.first);
    }
    if (path == kBackend) take_path(root, kBackendAlias);
    if (path == kBackendAlias) take_path(root, kBackend);
    set_path(root, parts,
             parse_yaml(std::string_view(text).substr(equals + 1), "--set " + path, false, path));
    expand_short_forms(root);
  }
}

}  // namespace lockstep::job
