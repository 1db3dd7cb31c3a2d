// SPDX-License-Identifier: Apache-2.0
// Job text as a tree of untyped nodes that know their places. yaml-cpp's event parser reads the grammar; what
// its own loader lets pass is refused here: duplicate keys, a second document, anchors, aliases, merge keys,
// tags, deep nesting, tabs and other control characters, bytes that are not UTF-8.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/error.h"

namespace lockstep::job {

inline constexpr size_t kMaxJobBytes = 1 << 20;
inline constexpr size_t kMaxJobDepth = 64;

// Where a node was written: `file:line:column` (from 1, columns in characters) or `--set KEY`.
struct Place {
  std::shared_ptr<const std::string> source;
  int line = 0, column = 0;  // line 0: the source is an option
  bool in_file() const { return line > 0; }
  std::string text() const;
};

struct Node {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  Place place;
  std::string text;     // scalar
  bool quoted = false;  // scalar: "x", 'x', | or >, and so a string
  std::vector<Node> children;
  std::string key;  // child of a map
  Place key_place;

  const Node* find(std::string_view name) const;  // child of a map, or null
  const char* kind_name() const;                  // "a list", for messages
};

// An Error(Exit::config) that names the place and the key path.
Error job_error(const Place& place, std::string_view key, std::string_view id, std::string message);
// User text for a message, printable and in quotes.
std::string shown(std::string_view text);
// "a.b" from "a" and "b".
std::string join_path(std::string_view prefix, std::string_view name);

// The one document in text. `source` is the file's path, or the option the text came from.
Node parse_yaml(std::string_view text, const std::string& source, bool is_file,
                const std::string& key_prefix = "");

}  // namespace lockstep::job
