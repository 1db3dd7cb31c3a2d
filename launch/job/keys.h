// SPDX-License-Identifier: Apache-2.0
// The one table of job keys: path, field, range or choices, default, help, example. Parsing, validation,
// `--help-keys`, docs/job-keys.md, the manual page and the resolved job are all made from it.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "launch/job/job.h"

namespace lockstep::job {

// Where a key's value lives. Its type is the key's type.
using Betas = std::array<double*, 2>;
struct Key;
// A map with keys of its own.
struct KeyMap {
  const std::vector<Key>& (*keys)();
  void* object;
};
using Slot = std::variant<bool*, int64_t*, uint64_t*, double*, std::string*, std::optional<int64_t>*,
                          std::optional<double>*, std::optional<std::string>*, Pair*, Extent*, Betas,
                          std::vector<float>*, std::vector<int64_t>*, std::vector<std::string>*,
                          DatasetConfig*, std::optional<DatasetConfig>*, std::vector<ParamGroupConfig>*,
                          std::vector<LayerSpec>*, std::optional<VaeConfig>*, KeyMap>;

struct Range {
  double min = -std::numeric_limits<double>::infinity(), max = std::numeric_limits<double>::infinity();
  bool open_min = false, open_max = false;  // the bound itself is out
  bool holds(double value) const;
  std::string text() const;  // ">= 0", "[0, 1)"; "" when unbounded
};

// What a string must be. name: a file name of letters, digits and '.', '_', '-'; identifier: of letters,
// digits and '_' (a layer's name is a part of dotted tensor names). A path is made absolute: against the job
// file's folder, or, for `cwd_path` and for values from --set, against the current directory.
enum class Text : uint8_t { any, name, identifier, path, cwd_path };

// The key belongs to some values of another key only: momentum to sgd. No values: it needs the other key.
struct When {
  std::string key;
  std::vector<std::string> values;
  std::string text() const;  // "hyperparameters.optimizer.name sgd"
};

// Whether a resumed run may have another value than it began with.
enum class Change : uint8_t {
  never,           // it shapes the trajectory; what a new key says nothing about
  free,            // it does not
  without_shards,  // it does where `shards` promises bits
  by_content,      // what lies there is compared instead
};

struct Key {
  std::string path;  // below its table's object: "hyperparameters.optimizer.lr"
  Slot (*slot)(void*) = nullptr;
  std::string help;
  std::string example;
  Range range = {};
  std::vector<std::string> choices = {};
  Text text = Text::any;
  bool required = false;
  // What leaving it out means, where no value of the key says so. Such a key has no default value to write.
  std::string absent = {};
  When when = {};
  bool short_form = false;  // `max_pool2d: 2` stands for `max_pool2d: {kernel: 2}`
  bool nullable = false;    // an optional or list that `null` empties, which differs from leaving the key out
  Change change = Change::never;
};
using Table = std::vector<Key>;

struct LayerWord {
  std::string word, help, example;
  LayerSpec prototype;  // its defaults
  Table keys;           // slots take a LayerSpec
};

const Table& job_keys();             // slots take a Job
const Table& dataset_keys();         // DatasetConfig
const Table& augment_keys();         // the same, of inputs.training only
const Table& training_keys();        // both
const Table& group_keys();           // ParamGroupConfig
const Table& unet_keys();            // UNet2DConfig
const Table& unet_condition_keys();  // UNet2DConditionConfig
const Table& clip_text_keys();       // ClipTextConfig
const Table& autoencoder_keys();     // AutoencoderKlConfig
Table model_keys();                  // parts of job_keys()
Table diffusion_keys();
Table stop_keys();
const std::vector<LayerWord>& layer_words();
const LayerWord* find_layer_word(std::string_view word);

// Keys of which at most one (or exactly one) may be given.
struct Exclusive {
  std::string first, second;
  bool one_needed;
};
const std::vector<Exclusive>& exclusive_keys();

// Names that are refused with a message of their own, wherever they stand.
struct RefusedKey {
  std::string name, id, message;
};
const std::vector<RefusedKey>& refused_keys();

// `backend` has a second place, where the two must agree.
inline constexpr std::string_view kBackend = "backend", kBackendAlias = "hyperparameters.backend";

// The reference of all keys, from the tables above, as rows of text.
struct ReferenceRow {
  std::string key, type, fallback, help, example;  // fallback: what leaving it out means
};
struct ReferenceSection {
  std::string title, note;
  std::vector<ReferenceRow> rows;
};
std::vector<ReferenceSection> reference_sections();

std::string type_text(const Key& key, const Slot& slot);  // "integer", "one of: sgd, adam"
bool is_left_out(const Key& key, const Slot& slot);       // holds the value that stands for "not given"
// The condition that keeps the key from applying: its own, or one of the key that it depends on; null: none.
const When* unmet(const Key& key, const Table& table, void* object);

// The nearest of `candidates` by edit distance (insert, delete, replace, swap neighbours); "" if there is
// none.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace lockstep::job
