// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/parameter_table.h"

#include <algorithm>
#include <unordered_set>

namespace lockstep {
namespace {

int64_t aligned(int64_t floats) { return (floats + 15) / 16 * 16; }

const FlatEntry* find_in(const std::vector<FlatEntry>& entries, const std::string& name) {
  for (const auto& e : entries)
    if (e.name == name) return &e;
  return nullptr;
}

void expect_same(const FlatEntry& entry, const Shape& shape) {
  LOCKSTEP_ASSERT(entry.shape == shape, "{} is {} in one program and {} in another", entry.name,
                  entry.shape.text(), shape.text());
}

bool in_trained_network(const ParameterTable& t, const std::string& name) {
  return t.trained.empty() ||
         std::find(t.trained.begin(), t.trained.end(), name.substr(0, name.find('.'))) != t.trained.end();
}

void add_parameter(ParameterTable& t, const Value& v) {
  t.parameters.push_back({v.name, v.spec.shape, v.init, t.length});
  t.length += aligned(v.spec.shape.elements());
  if (t.length >= kAddressable / 4)
    throw Error(Exit::config, "E_TOO_LARGE",
                fmt::format("the model's parameters lie in one array, which would be {} bytes with this "
                            "tensor: more than a process can address",
                            t.length * 4))
        .at("tensor", v.name);
}

}  // namespace

ParameterTable make_parameter_table(const Graph& forward, const std::vector<std::string>& trained) {
  ParameterTable t;
  t.trained = trained;
  add_parameters(t, forward);
  return t;
}

void add_parameters(ParameterTable& t, const Graph& forward) {
  const std::unordered_set<std::string> before(t.order.begin(), t.order.end());
  std::unordered_set<std::string> names = before;
  std::vector<ValueId> used;
  std::unordered_set<ValueId> seen;
  for (const Node& n : forward.nodes())
    for (ValueId v : n.in)
      if (forward.value(v).storage == Storage::parameter && seen.insert(v).second) used.push_back(v);
  std::vector<ValueId> frozen;
  for (auto it = used.rbegin(); it != used.rend(); ++it) {
    const Value& v = forward.value(*it);
    if (before.contains(v.name)) {
      expect_same(*t.find(v.name), v.spec.shape);
      continue;
    }
    if (!names.insert(v.name).second)
      throw Error(Exit::config, "E_TENSOR_NAME",
                  fmt::format("two tensors of the model are called '{}'", v.name))
          .hint("give one of the layers another name");
    if (!in_trained_network(t, v.name)) {
      frozen.push_back(*it);
      continue;
    }
    LOCKSTEP_ASSERT(t.trained_length == t.length, "{} is trained, and comes behind what is frozen", v.name);
    add_parameter(t, v);
    t.trained_length = t.length;
  }
  for (ValueId v : frozen) add_parameter(t, forward.value(v));
  for (ValueId v = 0; v < forward.value_count(); ++v) {
    const Value& value = forward.value(v);
    if (before.contains(value.name)) continue;
    if (value.storage == Storage::buffer) {
      if (!names.insert(value.name).second) continue;  // its value after an update
      t.buffers.push_back({value.name, value.spec.shape, value.init, t.buffer_length});
      t.buffer_length += aligned(value.spec.shape.elements());
    }
    if (value.storage == Storage::buffer || value.storage == Storage::parameter)
      t.order.push_back(value.name);
  }
}

const FlatEntry* ParameterTable::find(const std::string& name) const {
  const FlatEntry* e = find_in(parameters, name);
  return e ? e : find_in(buffers, name);
}

const FlatEntry& ParameterTable::parameter(const std::string& name) const {
  const FlatEntry* e = find_in(parameters, name);
  LOCKSTEP_ASSERT(e != nullptr, "no parameter {}", name);
  return *e;
}

const FlatEntry& ParameterTable::buffer(const std::string& name) const {
  const FlatEntry* e = find_in(buffers, name);
  LOCKSTEP_ASSERT(e != nullptr, "no buffer {}", name);
  return *e;
}

std::string ParameterTable::text() const {
  std::string s = fmt::format("{} of {} trained\n", trained_length, length);
  for (const auto& entries : {parameters, buffers})
    for (const auto& e : entries) s += fmt::format("{} {} at {}\n", e.name, e.shape.text(), e.begin);
  return s;
}

}  // namespace lockstep
