// SPDX-License-Identifier: Apache-2.0
// Reads a tree into typed structs by the tables of keys.h. Knows rows, not what they mean together
// (checks.h).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "launch/job/keys.h"
#include "launch/job/yaml_tree.h"

namespace lockstep::job {

class Reader {
 public:
  // folder: what relative paths in the file are relative to.
  explicit Reader(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Fills `object` from `map`, whose own key path is `prefix`; every key of the map must be a row of the
  // table. complete: keys that the table requires may be missing, since the object already holds them.
  void read(const Table& table, const Node& map, void* object, const std::string& prefix,
            bool complete = false);
  void read_value(const Key& key, const Node& node, const Slot& slot, const std::string& path);

  bool given(const std::string& path) const { return places_.contains(path); }
  // Of the key, or else of the innermost map around it that is there.
  Place place_of(std::string path) const;
  const std::map<std::string, Place>& places() const { return places_; }

 private:
  void check_names(const Table& table, const Node& map, const std::string& below, const std::string& prefix);
  std::string read_string(const Key& key, const Node& node, const std::string& path) const;
  void read_dataset(const Key& key, const Node& node, DatasetConfig& config, const std::string& path);
  std::vector<ParamGroupConfig> read_groups(const Node& node, const std::string& path);
  std::vector<LayerSpec> read_layers(const Node& node, const std::string& path);
  LayerSpec read_layer(const Node& item, const std::string& path);

  std::filesystem::path folder_;
  std::map<std::string, Place> places_;
  const DatasetConfig* training_ = nullptr;
  int list_depth_ = 0;  // lists of layers around the one being read
};

// Data sets that come with a training and a test half of their own.
bool has_test_half(const std::string& dataset);

}  // namespace lockstep::job
