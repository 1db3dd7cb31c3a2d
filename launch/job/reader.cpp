// SPDX-License-Identifier: Apache-2.0
#include "launch/job/reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "launch/job/scalar.h"
#include "runtime/files/path.h"
#include "runtime/files/utf8.h"

namespace lockstep::job {
namespace {

// The tree below "a" as the table's paths see it: "a.b.c" is child c of child b.
const Node* find_path(const Node& map, std::string_view path) {
  const Node* node = &map;
  while (node && !path.empty()) {
    const size_t dot = path.find('.');
    node = node->find(path.substr(0, dot));
    path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
  }
  return node;
}

std::vector<std::string> names_below(const Table& table, const std::string& below) {
  std::vector<std::string> names;
  const std::string start = below.empty() ? "" : below + ".";
  for (const Key& key : table)
    if (key.path.starts_with(start)) {
      std::string name = key.path.substr(start.size());
      name = name.substr(0, name.find('.'));
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
    }
  return names;
}

// A likely slip is a misspelt neighbour, or a key put on the wrong level.
std::string unknown_key_hint(const Table& table, const std::string& below, const std::string& prefix,
                             const std::string& name) {
  const std::vector<std::string> siblings = names_below(table, below);
  const std::string best = nearest(name, siblings);
  const std::string here = join_path(prefix, below);
  const size_t close = std::max<size_t>(2, name.size() / 3);
  if (edit_distance(name, best) <= close) return fmt::format("nearest valid key: {}", join_path(here, best));
  for (const Key& key : table)
    if (edit_distance(name, key.path.substr(key.path.rfind('.') + 1)) <= 1)
      return fmt::format("nearest valid key: {}", join_path(prefix, key.path));
  return fmt::format("nearest valid key: {}; valid here: {}", join_path(here, best),
                     fmt::join(siblings, ", "));
}

Error unknown_key(const Table& table, const Node& child, const std::string& below,
                  const std::string& prefix) {
  const std::string path = join_path(join_path(prefix, below), child.key);
  for (const RefusedKey& row : refused_keys())
    if (row.name == child.key) return job_error(child.key_place, path, row.id, row.message);
  return job_error(child.key_place, path, "E_JOB_UNKNOWN_KEY", "unknown key")
      .hint(unknown_key_hint(table, below, prefix, child.key));
}

std::string expectation(const Key& key) {
  if (!key.choices.empty()) return fmt::format("one of {}", fmt::join(key.choices, ", "));
  const std::string range = key.range.text();
  return range.empty() ? "for example " + key.example : "range " + range;
}

// `meant`: what the value was probably to be.
Error type_error(const Key& key, const Node& node, const std::string& path, const std::string& problem,
                 const std::string& meant = "") {
  const std::string found = node.kind == Node::Kind::scalar ? shown(node.text) : node.kind_name();
  return job_error(node.place, path, "E_JOB_TYPE", fmt::format("{}, found {}", problem, found))
      .hint((meant.empty() ? "" : fmt::format("did you mean {}? ", meant)) + expectation(key));
}

void expect_kind(const Key& key, const Node& node, const std::string& path, Node::Kind kind,
                 const std::string& expected) {
  if (node.kind == kind) return;
  if (node.kind == Node::Kind::null)
    throw job_error(node.place, path, "E_JOB_TYPE", fmt::format("no value given, expected {}", expected))
        .hint((key.text == Text::path || key.text == Text::cwd_path ? "\"~\" in quotes is the home folder; "
                                                                    : "") +
              expectation(key));
  throw type_error(key, node, path, "expected " + expected);
}

template <class T>
void expect_range(const Key& key, const Node& node, const std::string& path, T value) {
  if (!key.range.holds(static_cast<double>(value)))
    throw job_error(node.place, path, "E_JOB_RANGE",
                    fmt::format("{} is out of range, expected {}", node.text, key.range.text()));
}

template <class T>
std::string meant(const std::string& text) {
  if constexpr (std::is_same_v<T, bool>) return meant_boolean(text);
  return meant_number(text, std::is_integral_v<T>);
}

// One typed scalar by one of the rules of scalar.h.
template <class T, class Rule>
T scalar(const Key& key, const Node& node, const std::string& path, const char* expected, Rule rule) {
  expect_kind(key, node, path, Node::Kind::scalar, expected);
  T value{};
  if (node.quoted)
    throw type_error(key, node, path, fmt::format("expected {}, not quoted", expected), meant<T>(node.text));
  if (const std::string problem = rule(node.text, value); !problem.empty())
    throw type_error(key, node, path, problem, meant<T>(node.text));
  if constexpr (!std::is_same_v<T, bool>) expect_range(key, node, path, value);
  return value;
}

int64_t integer(const Key& key, const Node& node, const std::string& path) {
  return scalar<int64_t>(key, node, path, "an integer", parse_integer);
}
double number(const Key& key, const Node& node, const std::string& path) {
  return scalar<double>(key, node, path, "a number", parse_number);
}

void expect_size(const Key& key, const Node& node, const std::string& path, size_t size) {
  if (node.children.size() != size)
    throw job_error(node.place, path, "E_JOB_TYPE",
                    fmt::format("expected {} values, found {}", size, node.children.size()))
        .hint("for example " + key.example);
}

std::string item_path(const std::string& path, size_t index) { return fmt::format("{}[{}]", path, index); }

bool is_name(const std::string& text, std::string_view punctuation) {
  constexpr size_t kLongest = 128;
  return !text.empty() && text.size() <= kLongest && text[0] != '.' && text[0] != '-' &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return (std::isalnum(static_cast<unsigned char>(c)) && static_cast<unsigned char>(c) < 0x80) ||
                  punctuation.find(c) != std::string_view::npos;
         });
}

// What `null` makes of a nullable key.
struct Emptied {
  template <class T>
  void operator()(std::optional<T>* out) const {
    out->reset();
  }
  template <class T>
  void operator()(std::vector<T>* out) const {
    out->clear();
  }
  template <class T>
  void operator()(const T&) const {
    LOCKSTEP_ASSERT(false, "only optionals and lists are nullable");
  }
};

}  // namespace

bool has_test_half(const std::string& dataset) {
  return dataset == "mnist" || dataset == "fashion_mnist" || dataset == "cifar10" ||
         dataset == "captioned_digits";
}

Place Reader::place_of(std::string path) const {
  while (true) {
    if (const auto found = places_.find(path); found != places_.end()) return found->second;
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos) break;
    path.resize(dot);
  }
  const auto root = places_.find("");
  return root == places_.end() ? Place{} : root->second;
}

void Reader::check_names(const Table& table, const Node& map, const std::string& below,
                         const std::string& prefix) {
  for (const Node& child : map.children) {
    const std::string path = join_path(below, child.key);
    const auto row =
        std::find_if(table.begin(), table.end(), [&](const Key& key) { return key.path == path; });
    const bool group = std::any_of(table.begin(), table.end(),
                                   [&](const Key& key) { return key.path.starts_with(path + "."); });
    // A dot in a quoted key would look like a path.
    if ((row == table.end() && !group) || child.key.find('.') != std::string::npos)
      throw unknown_key(table, child, below, prefix);
    places_[join_path(prefix, path)] = child.key_place;
    if (row != table.end()) continue;
    if (child.kind != Node::Kind::map)
      throw job_error(child.place, join_path(prefix, path), "E_JOB_TYPE",
                      fmt::format("expected a map, found {}", child.kind_name()))
          .hint(fmt::format("valid keys: {}", fmt::join(names_below(table, path), ", ")));
    check_names(table, child, path, prefix);
  }
}

void Reader::read(const Table& table, const Node& map, void* object, const std::string& prefix,
                  bool complete) {
  if (prefix.empty()) places_[""] = map.place;
  check_names(table, map, "", prefix);
  for (const Key& key : table) {
    const std::string path = join_path(prefix, key.path);
    if (const Node* node = find_path(map, key.path)) {
      read_value(key, *node, key.slot(object), path);
    } else if (key.required && !complete) {
      // The list item or map that lacks it.
      const Node* around = &map;
      if (const size_t dot = key.path.rfind('.'); dot != std::string::npos)
        if (const Node* inner = find_path(map, key.path.substr(0, dot))) around = inner;
      const Place& place = around->key_place.source ? around->key_place : around->place;
      throw job_error(place, path, "E_JOB_REQUIRED", "missing key").hint("for example " + key.example);
    }
  }
  for (const Key& key : table)
    if (const Node* node = find_path(map, key.path))
      if (const When* condition = unmet(key, table, object))
        throw job_error(node->key_place, join_path(prefix, key.path), "E_JOB_CONFLICT",
                        fmt::format("belongs to {} only", join_path(prefix, condition->text())));
}

std::string Reader::read_string(const Key& key, const Node& node, const std::string& path) const {
  const std::string expected = key.choices.empty() ? "a string" : "a word";
  expect_kind(key, node, path, Node::Kind::scalar, expected);
  if (!node.quoted && looks_typed(node.text))
    throw type_error(key, node, path, fmt::format("expected {} (in quotes if it is one)", expected));
  if (!key.choices.empty()) {
    if (std::find(key.choices.begin(), key.choices.end(), node.text) == key.choices.end())
      throw job_error(node.place, path, "E_JOB_CHOICE",
                      fmt::format("{} is not one of {}", shown(node.text), fmt::join(key.choices, ", ")))
          .hint("nearest: " + nearest(node.text, key.choices));
    return node.text;
  }
  const auto refuse = [&](const char* rule) {
    throw job_error(node.place, path, "E_JOB_TYPE", fmt::format("{} {}", shown(node.text), rule));
  };
  if (node.text.empty()) refuse("is empty");
  for (const char c : node.text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) refuse("has a control character");
  switch (key.text) {
    case Text::any:
      return node.text;
    case Text::name:
      if (!is_name(node.text, "._-"))
        refuse("is no name: letters, digits, '.', '_', '-', at most 128, no leading '.' or '-'");
      return node.text;
    case Text::identifier:
      if (!is_name(node.text, "_")) refuse("is no layer name: letters, digits and '_', at most 128");
      return node.text;
    case Text::path:
    case Text::cwd_path:
      break;
  }
  if (find_invalid_utf8(node.text) != std::string_view::npos)
    refuse("is not UTF-8, which the run's job.yaml must be; a link of another name can stand for the folder");
  if (const char* why = why_not_at_home(node.text)) refuse(why);
  const bool from_file = node.place.in_file() && key.text == Text::path;
  const std::filesystem::path base = from_file ? folder_.string() : absolute_path(".");
  const std::string path_text = (base / at_home(node.text)).lexically_normal().string();
  if (find_invalid_utf8(path_text) != std::string_view::npos)
    refuse(
        "lies below a folder whose name is not UTF-8, which the run's job.yaml must be; a link can stand for "
        "it");
  return path_text;
}

void Reader::read_value(const Key& key, const Node& node, const Slot& slot, const std::string& path) {
  struct Visitor {
    Reader& reader;
    const Key& key;
    const Node& node;
    const std::string& path;

    void operator()(bool* out) const { *out = scalar<bool>(key, node, path, "true or false", parse_boolean); }
    void operator()(int64_t* out) const { *out = integer(key, node, path); }
    void operator()(uint64_t* out) const {
      *out = scalar<uint64_t>(key, node, path, "an integer", parse_unsigned);
    }
    void operator()(double* out) const { *out = number(key, node, path); }
    void operator()(std::optional<int64_t>* out) const { *out = integer(key, node, path); }
    void operator()(std::optional<double>* out) const { *out = number(key, node, path); }
    void operator()(std::string* out) const { *out = reader.read_string(key, node, path); }
    void operator()(std::optional<std::string>* out) const { *out = reader.read_string(key, node, path); }
    void operator()(Pair* out) const {
      if (node.kind != Node::Kind::list) {
        out->h = out->w = integer(key, node, path);
        return;
      }
      expect_size(key, node, path, 2);
      *out = {integer(key, node.children[0], item_path(path, 0)),
              integer(key, node.children[1], item_path(path, 1))};
    }
    void operator()(Extent* out) const {
      if (node.kind != Node::Kind::list) {
        *out = {integer(key, node, path), 0};
        return;
      }
      expect_size(key, node, path, 2);
      *out = {integer(key, node.children[0], item_path(path, 0)),
              integer(key, node.children[1], item_path(path, 1))};
    }
    void operator()(Betas out) const {
      expect_kind(key, node, path, Node::Kind::list, "a list of two numbers");
      expect_size(key, node, path, 2);
      for (size_t i = 0; i < 2; ++i) *out[i] = number(key, node.children[i], item_path(path, i));
    }
    void operator()(std::vector<float>* out) const {
      out->clear();
      if (node.kind != Node::Kind::list) {
        out->push_back(static_cast<float>(number(key, node, path)));
        return;
      }
      for (size_t i = 0; i < node.children.size(); ++i)
        out->push_back(static_cast<float>(number(key, node.children[i], item_path(path, i))));
      expect_some();
    }
    void operator()(std::vector<int64_t>* out) const {
      out->clear();
      if (node.kind != Node::Kind::list) {
        out->push_back(integer(key, node, path));
        return;
      }
      for (size_t i = 0; i < node.children.size(); ++i)
        out->push_back(integer(key, node.children[i], item_path(path, i)));
      expect_some();
    }
    void operator()(std::vector<std::string>* out) const {
      expect_kind(key, node, path, Node::Kind::list, "a list of strings");
      out->clear();
      for (size_t i = 0; i < node.children.size(); ++i)
        out->push_back(reader.read_string(key, node.children[i], item_path(path, i)));
      expect_some();
    }
    void operator()(DatasetConfig* out) const {
      reader.read_dataset(key, node, *out, path);
      reader.training_ = out;
    }
    void operator()(std::optional<DatasetConfig>* out) const {
      reader.read_dataset(key, node, out->emplace(), path);
    }
    void operator()(std::vector<ParamGroupConfig>* out) const {
      expect_kind(key, node, path, Node::Kind::list, "a list of maps");
      *out = reader.read_groups(node, path);
    }
    void operator()(std::optional<VaeConfig>* out) const {
      expect_kind(key, node, path, Node::Kind::map, "a map");
      auto& kind = out->emplace().kind.emplace<AutoencoderKlConfig>();
      reader.read(autoencoder_keys(), node, &kind, path);
    }
    void operator()(const KeyMap& map) const {
      expect_kind(key, node, path, Node::Kind::map, "a map");
      reader.read(map.keys(), node, map.object, path);
    }
    void operator()(std::vector<LayerSpec>* out) const {
      expect_kind(key, node, path, Node::Kind::list, "a list of layers");
      *out = reader.read_layers(node, path);
      expect_some();
    }
    void expect_some() const {
      if (node.children.empty())
        throw job_error(node.place, path, "E_JOB_TYPE", "the list is empty")
            .hint("for example " + key.example);
    }
  };
  if (key.nullable && node.kind == Node::Kind::null)
    std::visit(Emptied{}, slot);
  else
    std::visit(Visitor{*this, key, node, path}, slot);
}

void Reader::read_dataset(const Key& key, const Node& node, DatasetConfig& config, const std::string& path) {
  expect_kind(key, node, path, Node::Kind::map, "a map");
  config.where = node.key_place.text(), config.key = path;
  // What is evaluated is normalised and fitted as what was trained on, and a test set is that of the training
  // set, unless the job says otherwise.
  bool complete = false;
  if (training_) {
    config.mean = training_->mean;
    config.std = training_->std;
    config.fit = training_->fit;
    config.captions.column = training_->captions.column;
    config.captions.pattern = training_->captions.pattern;
    if (const Node* captions = node.find("captions")) {  // of two sources the one that is given
      if (captions->find("column")) config.captions.pattern.clear();
      if (captions->find("template")) config.captions.column.clear();
    }
    complete = key.path == "inputs.test" && has_test_half(training_->dataset) && !node.find("dataset") &&
               !node.find("path");
    if (complete) {
      config.dataset = training_->dataset;
      config.path = training_->path;
    }
  }
  read(key.path == "inputs.training" ? training_keys() : dataset_keys(), node, &config, path, complete);
  if (const Node* normalize = node.find("normalize"))
    for (const char* name : {"mean", "std"})
      if (!normalize->find(name))
        throw job_error(normalize->key_place, fmt::format("{}.normalize.{}", path, name), "E_JOB_REQUIRED",
                        "missing key: normalize needs mean and std")
            .hint("for example normalize: {mean: 0.1307, std: 0.3081}");
  if (config.mean.size() != config.std.size() && config.mean.size() != 1 && config.std.size() != 1)
    throw job_error(place_of(path + ".normalize"), path + ".normalize", "E_JOB_CONFLICT",
                    fmt::format("{} means, {} standard deviations", config.mean.size(), config.std.size()));
}

std::vector<ParamGroupConfig> Reader::read_groups(const Node& node, const std::string& path) {
  std::vector<ParamGroupConfig> groups;
  for (size_t i = 0; i < node.children.size(); ++i) {
    const Node& item = node.children[i];
    if (item.kind != Node::Kind::map)
      throw job_error(item.place, item_path(path, i), "E_JOB_TYPE",
                      fmt::format("expected a map, found {}", item.kind_name()))
          .hint("for example {match: \"*.bias\", weight_decay: 0}");
    ParamGroupConfig group;
    group.where = item.place.text();
    read(group_keys(), item, &group, item_path(path, i));
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace lockstep::job
