// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/state_io.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

namespace lockstep {
namespace {

constexpr const char* kTracked = "num_batches_tracked";

StoredTensor stored(std::string name, const Shape& shape, const float* data) {
  StoredTensor t;
  t.name = std::move(name);
  t.dtype = "F32";
  for (int i = 0; i < shape.rank(); ++i) t.shape.push_back(shape[i]);
  t.bytes = {reinterpret_cast<const std::byte*>(data), static_cast<size_t>(shape.elements()) * 4};
  return t;
}

std::vector<std::pair<std::string, const AlignedBuffer*>> training_arrays(const ModelState& m) {
  std::vector<std::pair<std::string, const AlignedBuffer*>> arrays;
  if (m.state.size() == 1) arrays = {{"momentum.", &m.state[0]}};
  if (m.state.size() == 2) arrays = {{"m.", &m.state[0]}, {"v.", &m.state[1]}};
  if (m.has_ema()) arrays.emplace_back("raw.", &m.parameters);
  return arrays;
}

// Where each expected tensor goes; loading compares names, dtypes and shapes before it writes a byte.
struct Target {
  StoredTensor like;
  void* data;
};

// The name that diffusers' attention had for it before version 0.14; empty for all else.
std::string older_name(const std::string& name) {
  for (const auto& [now, then] : {std::pair{".to_q.", ".query."},
                                  {".to_k.", ".key."},
                                  {".to_v.", ".value."},
                                  {".to_out.0.", ".proj_attn."}})
    if (const size_t at = name.rfind(now); at != std::string::npos)
      return name.substr(0, at) + then + name.substr(at + std::string_view(now).size());
  return {};
}

const StoredTensor* find(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* found = file.find(name);
  return found ? found : file.find(older_name(name));
}

void load(const std::vector<StoredTensor>& into, const SafetensorsFile& file, const std::string& path) {
  std::map<std::string, Target> targets;
  for (const auto& t : into) targets[t.name] = {t, const_cast<std::byte*>(t.bytes.data())};
  std::string wrong;
  auto complain = [&](std::string what) { wrong += (wrong.empty() ? "" : "; ") + what; };
  auto shape_text = [](const StoredTensor& t) {
    std::string s = t.dtype + "[";
    for (size_t i = 0; i < t.shape.size(); ++i) s += (i ? ", " : "") + std::to_string(t.shape[i]);
    return s + "]";
  };
  std::set<std::string> used;
  for (const auto& [name, target] : targets) {
    const StoredTensor* t = find(file, name);
    if (t) used.insert(t->name);
    if (!t)
      complain(fmt::format("missing \"{}\"", name));
    else if (t->dtype != target.like.dtype || t->shape != target.like.shape)
      complain(fmt::format("\"{}\" is {}, expected {}", name, shape_text(*t), shape_text(target.like)));
  }
  for (const auto& t : file.tensors())
    if (!used.count(t.name)) complain(fmt::format("surplus \"{}\"", t.name));
  if (!wrong.empty()) throw Error(Exit::data, "E_TENSORS", wrong).at("file", path);
  for (const auto& [name, target] : targets) {
    const auto bytes = find(file, name)->bytes;
    std::memcpy(target.data, bytes.data(), bytes.size());
  }
}

std::vector<StoredTensor> tensors_with(const ModelState& m, const AlignedBuffer& parameters) {
  std::vector<StoredTensor> tensors;
  for (const auto& name : m.table.order) {
    const FlatEntry& e = *m.table.find(name);
    const bool buffer =
        std::any_of(m.table.buffers.begin(), m.table.buffers.end(), [&](auto& b) { return b.name == name; });
    tensors.push_back(stored(name, e.shape, (buffer ? m.buffers : parameters).as<float>() + e.begin));
    const std::string last = "running_var";
    if (name.ends_with(last)) {
      StoredTensor t;
      t.name = name.substr(0, name.size() - last.size()) + kTracked;
      t.dtype = "I64";
      t.bytes = std::as_bytes(std::span(&m.batches_tracked, 1));
      tensors.push_back(t);
    }
  }
  return tensors;
}

}  // namespace

std::vector<StoredTensor> model_tensors(const ModelState& m) { return tensors_with(m, m.parameters); }

std::vector<StoredTensor> averaged_tensors(const ModelState& m) {
  return tensors_with(m, m.has_ema() ? m.ema : m.parameters);
}

std::vector<StoredTensor> optimizer_tensors(const ModelState& m) {
  std::vector<StoredTensor> tensors;
  for (const auto& [prefix, array] : training_arrays(m))
    for (const auto& e : m.table.parameters)
      tensors.push_back(stored(prefix + e.name, e.shape, array->as<float>() + e.begin));
  return tensors;
}

void load_model_tensors(ModelState& m, const SafetensorsFile& file, const std::string& path) {
  load(model_tensors(m), file, path);
}

void load_averaged_tensors(ModelState& m, const SafetensorsFile& file, const std::string& path) {
  load(averaged_tensors(m), file, path);
}

void load_optimizer_tensors(ModelState& m, const SafetensorsFile& file, const std::string& path) {
  load(optimizer_tensors(m), file, path);
}

}  // namespace lockstep
