// SPDX-License-Identifier: Apache-2.0
#include "launch/job/write.h"

#include <fmt/ranges.h>

#include "launch/job/scalar.h"
#include "runtime/data/hash.h"

namespace lockstep {

namespace {

// The keys that say something, in the table's order.
template <class Visit>
void for_each_value(const job::Table& table, void* object, const Visit& visit) {
  for (const job::Key& key : table) {
    const job::Slot slot = key.slot(object);
    if (!job::is_left_out(key, slot) && !job::unmet(key, table, object)) visit(key, slot);
  }
}

// What a job says of a VAE; `none` where there is none, or one of another kind, which no job trains with.
AutoencoderKlConfig* posterior_vae(std::optional<VaeConfig>& vae, AutoencoderKlConfig& none) {
  auto* kl = vae ? std::get_if<AutoencoderKlConfig>(&vae->kind) : nullptr;
  return kl ? kl : &none;
}

// Every key, those of data sets and of networks among them: visit(path, key, slot, the default's slot, whether it says
// something).
template <class Visit>
void for_each_key(const job::Table& table, void* object, void* defaults, const std::string& prefix, bool here,
                  const Visit& visit) {
  for (const job::Key& key : table) {
    const job::Slot slot = key.slot(object);
    const bool says = here && !job::is_left_out(key, slot) && !job::unmet(key, table, object);
    const std::string path = prefix + key.path;
    DatasetConfig no_set;
    AutoencoderKlConfig no_vae;
    if (const auto* dataset = std::get_if<DatasetConfig*>(&slot))
      for_each_key(job::training_keys(), *dataset, &no_set, path + ".", says, visit);
    else if (const auto* optional = std::get_if<std::optional<DatasetConfig>*>(&slot))
      for_each_key(job::dataset_keys(), (*optional)->has_value() ? &(*optional)->value() : &no_set, &no_set,
                   path + ".", says, visit);
    else if (const auto* vae = std::get_if<std::optional<VaeConfig>*>(&slot))
      for_each_key(job::autoencoder_keys(), posterior_vae(**vae, no_vae), &no_vae, path + ".", says, visit);
    else if (const auto* map = std::get_if<job::KeyMap>(&slot))
      for_each_key(map->keys(), map->object, std::get<job::KeyMap>(key.slot(defaults)).object, path + ".",
                   says, visit);
    else
      visit(path, key, slot, key.slot(defaults), says);
  }
}

// A table without dotted paths as one flow map.
std::string flow_map(const job::Table& table, void* object) {
  std::vector<std::string> entries;
  for_each_value(table, object, [&](const job::Key& key, const job::Slot& slot) {
    entries.push_back(fmt::format("{}: {}", key.path, job::flow_text(slot)));
  });
  return fmt::format("{{{}}}", fmt::join(entries, ", "));
}

std::string layer_text(LayerSpec& layer) {
  const std::string keys = flow_map(job::find_layer_word(layer.type)->keys, &layer);
  return keys == "{}" ? layer.type : fmt::format("{{{}: {}}}", layer.type, keys);
}

struct FlowText {
  std::string operator()(bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(int64_t* value) const { return std::to_string(*value); }
  std::string operator()(uint64_t* value) const { return std::to_string(*value); }
  std::string operator()(double* value) const { return job::number_text(*value); }
  std::string operator()(std::string* value) const { return job::string_text(*value); }
  // Of what is given, or of a nullable key.
  std::string operator()(std::optional<int64_t>* value) const {
    return *value ? std::to_string(**value) : "null";
  }
  std::string operator()(std::optional<double>* value) const {
    return *value ? job::number_text(**value) : "null";
  }
  std::string operator()(std::optional<std::string>* value) const {
    return *value ? job::string_text(**value) : "null";
  }
  std::string operator()(Pair* value) const { return fmt::format("[{}, {}]", value->h, value->w); }
  std::string operator()(Extent* value) const {
    return value->width ? fmt::format("[{}, {}]", value->height, value->width)
                        : std::to_string(value->height);
  }
  std::string operator()(const job::Betas& value) const {
    return fmt::format("[{}, {}]", job::number_text(*value[0]), job::number_text(*value[1]));
  }
  std::string operator()(std::vector<float>* values) const {
    // As floats: 0.1307, not the double that the float is.
    return fmt::format("[{}]", fmt::join(*values, ", "));
  }
  std::string operator()(std::vector<int64_t>* values) const {
    return fmt::format("[{}]", fmt::join(*values, ", "));
  }
  std::string operator()(std::vector<std::string>* values) const {
    std::vector<std::string> texts;
    for (const std::string& value : *values) texts.push_back(job::string_text(value));
    return fmt::format("[{}]", fmt::join(texts, ", "));
  }
  std::string operator()(std::vector<ParamGroupConfig>* groups) const {
    std::vector<std::string> texts;
    for (ParamGroupConfig& group : *groups) texts.push_back(flow_map(job::group_keys(), &group));
    return fmt::format("[{}]", fmt::join(texts, ", "));
  }
  std::string operator()(std::vector<LayerSpec>* layers) const {
    std::vector<std::string> texts;
    for (LayerSpec& layer : *layers) texts.push_back(layer_text(layer));
    return fmt::format("[{}]", fmt::join(texts, ", "));
  }
  // Maps with keys of their own: written as blocks.
  std::string operator()(const job::KeyMap&) const { LOCKSTEP_ASSERT(false); }
  std::string operator()(std::optional<VaeConfig>*) const { LOCKSTEP_ASSERT(false); }
  std::string operator()(DatasetConfig*) const { LOCKSTEP_ASSERT(false); }
  std::string operator()(std::optional<DatasetConfig>*) const { LOCKSTEP_ASSERT(false); }
};

class BlockWriter {
 public:
  void write(const std::string& path, const job::Slot& slot) {
    if (const auto* layers = std::get_if<std::vector<LayerSpec>*>(&slot))
      write_layers(path, **layers);
    else
      line(path, " " + job::flow_text(slot));
  }
  std::string take() { return std::move(text_); }

 private:
  // `a.b.c` below `a.x`: opens only the maps that aren't open yet. Returns the key's own indentation.
  size_t line(const std::string& path, const std::string& value) {
    size_t depth = 0, start = 0;
    bool same = true;
    for (size_t dot; (dot = path.find('.', start)) != std::string::npos; start = dot + 1, ++depth) {
      const std::string name = path.substr(start, dot - start);
      same = same && depth < open_.size() && open_[depth] == name;
      if (same) continue;
      open_.resize(depth);
      open_.push_back(name);
      text_ += fmt::format("{:{}}{}:\n", "", 2 * depth, name);
    }
    open_.resize(depth);
    text_ += fmt::format("{:{}}{}:{}\n", "", 2 * depth, path.substr(start), value);
    return 2 * depth;
  }
  void write_layers(const std::string& path, std::vector<LayerSpec>& layers) {
    const size_t indent = line(path, "") + 2;
    for (LayerSpec& layer : layers) text_ += fmt::format("{:{}}- {}\n", "", indent, layer_text(layer));
  }

  std::string text_;
  std::vector<std::string> open_;
};

}  // namespace

std::string job::flow_text(const job::Slot& slot) { return std::visit(FlowText{}, slot); }

std::string job::block_text(const job::Table& table, void* object) {
  BlockWriter writer;
  for_each_key(
      table, object, object, "", true,
      [&](const std::string& path, const job::Key&, const job::Slot& slot, const job::Slot&, bool says) {
        if (says) writer.write(path, slot);
      });
  return writer.take();
}

std::string to_yaml(const Job& job) {
  Job copy = job;  // slots point at what can be written to
  return job::block_text(job::job_keys(), &copy);
}

JobValues job_values(const Job& job) {
  Job copy = job, defaults;
  const auto place = [&](std::string path) {
    while (!path.empty()) {
      if (const auto where = job.where.find(path); where != job.where.end()) return where->second;
      path.resize(path.find_last_of(".[") == std::string::npos ? 0 : path.find_last_of(".["));
    }
    return job.file;
  };
  JobValues values;
  for_each_key(job::job_keys(), &copy, &defaults, "", true,
               [&](const std::string& path, const job::Key& key, const job::Slot& slot,
                   const job::Slot& fallback, bool says) {
                 const bool may_change =
                     key.change == job::Change::free || key.change == job::Change::by_content ||
                     (key.change == job::Change::without_shards && !job.hyperparameters.shards);
                 if (const auto* layers = std::get_if<std::vector<LayerSpec>*>(&slot)) {
                   for (size_t i = 0; i < (*layers)->size(); ++i) {
                     const std::string layer = fmt::format("{}[{}]", path, i);
                     values[layer] = {layer_text((**layers)[i]), "", may_change, place(layer)};
                   }
                   return;
                 }
                 const bool none = key.required || job::is_left_out(key, fallback);
                 values[path] = {says ? job::flow_text(slot) : "", none ? "" : job::flow_text(fallback),
                                 may_change, place(path)};
               });
  return values;
}

std::string job_hash(const Job& job) {
  Job shared = job;
  shared.output_dir = ".";
  const std::string text = to_yaml(shared);
  return sha256_hex(std::as_bytes(std::span(text)));
}

}  // namespace lockstep
