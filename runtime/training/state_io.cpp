// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/state_io.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <unordered_map>

namespace lockstep {
namespace {

constexpr const char* kTracked = "num_batches_tracked";

StoredTensor stored(std::string name, const Shape& shape, const float* data) {
  StoredTensor t;
  t.name = std::move(name);
  t.dtype = "F32";
  for (int i = 0; i < shape.rank(); ++i) t.shape.push_back(shape[i]);
  if (data != nullptr)
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

// What wrappers put before the names of a model's tensors: DistributedDataParallel, torch.compile, averages of weights.
constexpr std::string_view kPrefixes[] = {"module.", "_orig_mod.", "ema_model."};

// The prefix under which a file has its tensors, of those above, one or several: "module._orig_mod.".
std::string prefix_of(const SafetensorsFile& file) {
  std::string prefix;
  for (bool longer = true; longer;) {
    longer = false;
    for (std::string_view next : kPrefixes) {
      const std::string tried = prefix + std::string(next);
      const auto begins = [&](const StoredTensor& t) { return t.name.starts_with(tried); };
      // Beside an average's there may be the names of what is averaged.
      const bool found = next == "ema_model."
                             ? std::any_of(file.tensors().begin(), file.tensors().end(), begins)
                             : std::all_of(file.tensors().begin(), file.tensors().end(), begins);
      if (!found || file.tensors().empty()) continue;
      prefix = tried;
      longer = true;
    }
  }
  return prefix;
}

const StoredTensor* find(const SafetensorsFile& file, const std::string& prefix, const std::string& name) {
  const StoredTensor* found = file.find(prefix + name);
  const std::string older = found ? std::string() : older_name(name);
  return older.empty() ? found : file.find(prefix + older);
}

bool converts_to_f32(const std::string& dtype) {
  return dtype == "F32" || dtype == "F16" || dtype == "BF16" || dtype == "F64";
}

// IEEE 754 binary16.
float from_f16(uint16_t h) {
  const uint32_t sign = uint32_t{h} >> 15 << 31, exponent = h >> 10 & 0x1f, mantissa = h & 0x3ff;
  if (exponent == 0)
    return std::copysign(static_cast<float>(mantissa) * 0x1p-24F, std::bit_cast<float>(sign));
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent - 15 + 127;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

template <class Stored, class Convert>
void convert(std::span<const std::byte> bytes, void* to, Convert f) {
  auto* out = static_cast<float*>(to);
  for (size_t i = 0; i * sizeof(Stored) < bytes.size(); ++i) {
    Stored s;  // not aligned in the file
    std::memcpy(&s, bytes.data() + i * sizeof s, sizeof s);
    out[i] = f(s);
  }
}

void copy(const StoredTensor& from, void* to) {
  if (from.dtype == "F16")
    convert<uint16_t>(from.bytes, to, from_f16);
  else if (from.dtype == "BF16")
    convert<uint16_t>(from.bytes, to, [](uint16_t b) { return std::bit_cast<float>(uint32_t{b} << 16); });
  else if (from.dtype == "F64")
    convert<double>(from.bytes, to, [](double d) { return static_cast<float>(d); });
  else
    std::memcpy(to, from.bytes.data(), from.bytes.size());
}

// A convolution 1x1 and a linear layer have the same numbers: [N, M, 1, 1] is [N, M].
bool same_matrix(std::vector<int64_t> a, std::vector<int64_t> b) {
  for (auto* shape : {&a, &b})
    if (shape->size() == 4 && (*shape)[2] == 1 && (*shape)[3] == 1) shape->resize(2);
  return a == b;
}

struct Match {
  std::string prefix;  // that the file's names have
  int64_t converted = 0, passed_over = 0;
};

// Compares names, dtypes and shapes.
Match match(const std::vector<StoredTensor>& into, const SafetensorsFile& file, const std::string& path) {
  std::map<std::string, const StoredTensor*> targets;
  for (const auto& t : into) targets[t.name] = &t;
  const bool as_they_are = std::any_of(into.begin(), into.end(), [&](auto& t) { return file.find(t.name); });
  Match m;
  m.prefix = as_they_are ? "" : prefix_of(file);
  std::string wrong;
  auto complain = [&](const std::string& what) { wrong += (wrong.empty() ? "" : "; ") + what; };
  auto shape_text = [](const StoredTensor& t) {
    std::string s = t.dtype + "[";
    for (size_t i = 0; i < t.shape.size(); ++i) s += (i ? ", " : "") + std::to_string(t.shape[i]);
    return s + "]";
  };
  std::set<std::string> used;
  for (const auto& [name, target] : targets) {
    const StoredTensor* t = find(file, m.prefix, name);
    if (!t) {
      // PyTorch counts batches since 0.4.1; only an average without a momentum asks for the count.
      if (!name.ends_with(kTracked)) complain(fmt::format("missing \"{}\"", name));
      continue;
    }
    used.insert(t->name);
    const bool fits = t->dtype == target->dtype || (target->dtype == "F32" && converts_to_f32(t->dtype));
    if (!fits || !same_matrix(t->shape, target->shape))
      complain(fmt::format("\"{}\" is {}, expected {}", name, shape_text(*t), shape_text(*target)));
    m.converted += t->dtype != target->dtype;
  }
  for (const auto& t : file.tensors()) {
    if (used.count(t.name)) continue;
    if (t.name.starts_with(m.prefix))
      complain(fmt::format("surplus \"{}\"", t.name));
    else
      ++m.passed_over;
  }
  if (!wrong.empty()) throw Error(Exit::data, "E_TENSORS", wrong).at("file", path);
  return m;
}

// Nothing is written where something doesn't fit. `placed`: whether the tensor may stay where it lies in the file.
void load(const std::vector<StoredTensor>& into, const SafetensorsFile& file, const std::string& path,
          const std::function<bool(const std::string& name, const StoredTensor&)>& placed = {}) {
  const Match m = match(into, file, path);
  if (!m.prefix.empty())
    spdlog::info("{}: \"{}\" before the names of tensors is left out{}", path, m.prefix,
                 m.passed_over > 0 ? fmt::format(", as are {} tensors without it", m.passed_over) : "");
  if (m.converted > 0) spdlog::info("{}: {} tensors are converted to F32", path, m.converted);
  for (const auto& target : into) {
    const StoredTensor* t = find(file, m.prefix, target.name);
    if (t && !(placed && placed(target.name, *t))) copy(*t, const_cast<std::byte*>(target.bytes.data()));
  }
}

// Null: names, dtypes and shapes alone.
struct TensorData {
  const float *trained = nullptr, *frozen = nullptr, *buffers = nullptr;
  const int64_t* batches_tracked = nullptr;
};

std::vector<StoredTensor> tensors_of(const ParameterTable& table, const TensorData& data) {
  std::unordered_map<std::string, std::pair<const FlatEntry*, const float*>> entries;
  for (const FlatEntry& e : table.parameters)
    entries[e.name] = {&e, table.trains(e) ? data.trained : data.frozen};
  for (const FlatEntry& e : table.buffers) entries[e.name] = {&e, data.buffers};
  std::vector<StoredTensor> tensors;
  for (const auto& name : table.order) {
    const auto [e, of] = entries.at(name);
    tensors.push_back(stored(name, e->shape, of ? of + e->begin : nullptr));
    const std::string last = "running_var";
    if (name.ends_with(last)) {
      StoredTensor t;
      t.name = name.substr(0, name.size() - last.size()) + kTracked;
      t.dtype = "I64";
      if (data.batches_tracked) t.bytes = std::as_bytes(std::span(data.batches_tracked, 1));
      tensors.push_back(t);
    }
  }
  return tensors;
}

// Of all ones in the exponent's bits. Without a branch, so that the compiler makes vectors of it.
bool all_finite(std::span<const float> x) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t found = 0;
  for (float v : x) found |= (std::bit_cast<uint32_t>(v) & kExponent) == kExponent ? 1U : 0U;
  return found == 0;
}

std::vector<StoredTensor> tensors_with(const ModelState& m, const AlignedBuffer& trained) {
  return tensors_of(
      m.table, {trained.as<float>(), m.parameters.as<float>(), m.buffers.as<float>(), &m.batches_tracked});
}

}  // namespace

std::vector<StoredTensor> model_tensors(const ModelState& m) { return tensors_with(m, m.parameters); }

std::vector<StoredTensor> averaged_tensors(const ModelState& m) {
  return tensors_with(m, m.has_ema() ? m.ema : m.parameters);
}

std::vector<StoredTensor> of_network(std::span<const StoredTensor> tensors, const std::string& network) {
  const std::string prefix = network.empty() ? "" : network + ".";
  std::vector<StoredTensor> found;
  for (StoredTensor t : tensors) {
    if (!t.name.starts_with(prefix)) continue;
    t.name.erase(0, prefix.size());
    found.push_back(std::move(t));
  }
  return found;
}

std::vector<StoredTensor> optimizer_tensors(const ModelState& m) {
  std::vector<StoredTensor> tensors;
  for (const auto& [prefix, array] : training_arrays(m))
    for (const auto& e : m.table.parameters)
      if (m.table.trains(e))
        tensors.push_back(stored(prefix + e.name, e.shape, array->as<float>() + e.begin));
  return tensors;
}

void expect_model_tensors(const ParameterTable& table, const SafetensorsFile& file, const std::string& path) {
  match(tensors_of(table, {}), file, path);
}

void check_model_tensors(const ParameterTable& table, const SafetensorsFile& file, const std::string& path) {
  const auto wanted = tensors_of(table, {});
  const std::string prefix = match(wanted, file, path).prefix;
  std::vector<float> numbers;
  for (StoredTensor target : wanted) {
    const StoredTensor* t = find(file, prefix, target.name);
    if (!t || target.dtype != "F32") continue;
    numbers.resize(t->bytes.size() / static_cast<size_t>(safetensors_dtype_size(t->dtype)));
    copy(*t, numbers.data());
    target.bytes = std::as_bytes(std::span(numbers));
    expect_finite_weights(std::span(&target, 1), path);
  }
}

void load_model_tensors(ModelState& m, const SafetensorsFile& file, const std::string& path) {
  load(model_tensors(m), file, path);
}

void place_model_tensors(ModelState& m, const SafetensorsFile& file, const std::string& path) {
  LOCKSTEP_ASSERT(m.half.bytes() == 0, "bf16 copies are made of the whole array");
  std::set<std::string_view> parameters;
  for (const FlatEntry& e : m.table.parameters) parameters.insert(e.name);
  load(model_tensors(m), file, path, [&](const std::string& name, const StoredTensor& t) {
    const bool aligned = reinterpret_cast<uintptr_t>(t.bytes.data()) % alignof(float) == 0;
    if (t.dtype != "F32" || !aligned || !parameters.contains(name)) return false;
    m.place(name, reinterpret_cast<const float*>(t.bytes.data()));
    return true;
  });
}

void load_averaged_tensors(ModelState& m, const SafetensorsFile& file, const std::string& path) {
  load(averaged_tensors(m), file, path);
}

void load_optimizer_tensors(ModelState& m, const SafetensorsFile& file, const std::string& path) {
  load(optimizer_tensors(m), file, path);
}

const StoredTensor* first_non_finite(std::span<const StoredTensor> tensors) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [](const StoredTensor& t) {
    return t.dtype == "F32" &&
           !all_finite({reinterpret_cast<const float*>(t.bytes.data()), t.bytes.size() / 4});
  });
  return found == tensors.end() ? nullptr : &*found;
}

void expect_finite_weights(std::span<const StoredTensor> tensors, const std::string& file) {
  if (const StoredTensor* t = first_non_finite(tensors))
    throw Error(Exit::data, "E_NOT_FINITE", "a tensor holds numbers that are not finite in F32")
        .at("file", file)
        .at("tensor", t->name);
}

}  // namespace lockstep
