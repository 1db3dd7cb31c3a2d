// SPDX-License-Identifier: Apache-2.0
// What a row of the table means: range, type in words, left-out values, nearest names.
#include <fmt/ranges.h>

#include <algorithm>

#include "launch/job/keys.h"
#include "launch/job/scalar.h"
#include "launch/job/yaml_tree.h"

namespace lockstep::job {

bool Range::holds(double value) const {
  // An open bound must still hold after rounding to fp32, which the kernels compute in: 1 - 1e-12 is 1 there.
  const auto rounded = static_cast<float>(value);
  if (open_min ? value <= min || rounded <= static_cast<float>(min) : value < min) return false;
  if (open_max ? value >= max || rounded >= static_cast<float>(max) : value > max) return false;
  return true;
}

std::string Range::text() const {
  const bool low = min > -std::numeric_limits<double>::infinity();
  const bool high = max < std::numeric_limits<double>::infinity();
  if (low && high && !open_min && !open_max) return fmt::format("{}..{}", number_text(min), number_text(max));
  if (low && high)
    return fmt::format("{}{}, {}{}", open_min ? "(" : "[", number_text(min), number_text(max),
                       open_max ? ")" : "]");
  if (low) return fmt::format("{} {}", open_min ? ">" : ">=", number_text(min));
  if (high) return fmt::format("{} {}", open_max ? "<" : "<=", number_text(max));
  return {};
}

namespace {

struct TypeText {
  const Key& key;
  std::string operator()(bool*) const { return "true or false"; }
  std::string operator()(int64_t*) const { return "integer"; }
  std::string operator()(uint64_t*) const { return "integer"; }
  std::string operator()(double*) const { return "number"; }
  std::string operator()(std::optional<int64_t>*) const { return "integer"; }
  std::string operator()(std::optional<double>*) const { return "number"; }
  std::string operator()(Pair*) const { return "integer or [height, width]"; }
  std::string operator()(Extent*) const { return "integer or [height, width]"; }
  std::string operator()(Betas) const { return "list of two numbers"; }
  std::string operator()(std::vector<float>*) const { return "number or list of numbers"; }
  std::string operator()(std::vector<int64_t>*) const { return "integer or list of integers"; }
  std::string operator()(std::vector<std::string>*) const {
    return key.choices.empty() ? "list of strings" : fmt::format("list of {}", fmt::join(key.choices, ", "));
  }
  std::string operator()(std::optional<std::string>*) const {
    return key.choices.empty() ? "string" : fmt::format("{}", fmt::join(key.choices, ", "));
  }
  std::string operator()(std::optional<VaeConfig>*) const { return "map"; }
  std::string operator()(const KeyMap&) const { return "map"; }
  std::string operator()(DatasetConfig*) const { return "map"; }
  std::string operator()(std::optional<DatasetConfig>*) const { return "map"; }
  std::string operator()(std::vector<ParamGroupConfig>*) const { return "list of maps"; }
  std::string operator()(std::vector<LayerSpec>*) const { return "list of layers"; }
  std::string operator()(std::string*) const {
    if (!key.choices.empty()) return fmt::format("{}", fmt::join(key.choices, ", "));
    switch (key.text) {
      case Text::path:
      case Text::cwd_path:
        return "path";
      case Text::name:
      case Text::identifier:
        return "name";
      case Text::any:
        break;
    }
    return "string";
  }
};

struct IsEmpty {
  bool operator()(bool*) const { return false; }
  bool operator()(int64_t* value) const { return *value == 0; }
  bool operator()(uint64_t*) const { return false; }
  bool operator()(double* value) const { return *value == 0; }
  bool operator()(std::string* value) const { return value->empty(); }
  bool operator()(Pair* value) const { return value->h == 0 && value->w == 0; }
  bool operator()(Extent* value) const { return !value->given(); }
  bool operator()(Betas) const { return false; }
  bool operator()(DatasetConfig*) const { return false; }
  bool operator()(const KeyMap&) const { return false; }
  template <class T>
  bool operator()(std::optional<T>* value) const {
    return !value->has_value();
  }
  template <class T>
  bool operator()(std::vector<T>* value) const {
    return value->empty();
  }
};

}  // namespace

std::string When::text() const {
  return values.empty() ? key : fmt::format("{} {}", key, fmt::join(values, ", "));
}

std::string type_text(const Key& key, const Slot& slot) { return std::visit(TypeText{key}, slot); }

bool is_left_out(const Key& key, const Slot& slot) {
  return !key.absent.empty() && std::visit(IsEmpty{}, slot);
}

const When* unmet(const Key& key, const Table& table, void* object) {
  if (key.when.key.empty()) return nullptr;
  const auto other =
      std::find_if(table.begin(), table.end(), [&](const Key& k) { return k.path == key.when.key; });
  LOCKSTEP_ASSERT(other != table.end(), "{} depends on {}, which is not in its table", key.path,
                  key.when.key);
  if (const When* of_other = unmet(*other, table, object)) return of_other;
  const Slot slot = other->slot(object);
  const std::vector<std::string>& values = key.when.values;
  if (values.empty()) return is_left_out(*other, slot) ? &key.when : nullptr;
  const auto* flag = std::get_if<bool*>(&slot);
  const std::string value = flag ? (**flag ? "true" : "false") : *std::get<std::string*>(slot);
  return std::find(values.begin(), values.end(), value) == values.end() ? &key.when : nullptr;
}

// Optimal string alignment: Levenshtein's distance with swaps of neighbours.
size_t edit_distance(std::string_view a, std::string_view b) {
  constexpr size_t kLongest = 64;  // no key is longer: bounds the work that a hostile file can ask for
  a = a.substr(0, kLongest);
  b = b.substr(0, kLongest);
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::numeric_limits<size_t>::max();
  for (const std::string& candidate : candidates)
    if (const size_t distance = edit_distance(word, candidate); distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  return best;
}

}  // namespace lockstep::job
