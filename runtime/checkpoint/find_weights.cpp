// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/find_weights.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "runtime/checkpoint/recorded_hash.h"
#include "runtime/checkpoint/weights_hash.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

// Folder and stem, in this order.
constexpr std::array<std::pair<const char*, const char*>, 3> kStems{
    {{"", "model"}, {"/unet", "diffusion_pytorch_model"}, {"", "diffusion_pytorch_model"}}};
constexpr std::string_view kIndex = ".safetensors.index";

// The word between two parts of a name: "fp16" in "model.fp16.safetensors".
bool is_variant(std::string_view name, std::string_view before, std::string_view after) {
  if (name.size() <= before.size() + after.size() || !name.starts_with(before) || !name.ends_with(after))
    return false;
  const std::string_view word = name.substr(before.size(), name.size() - before.size() - after.size());
  return std::all_of(word.begin(), word.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
}

std::string find_variant(const std::string& folder, const std::string& stem) {
  if (!is_folder(folder)) return "";
  std::vector<std::string> variants;
  for (const std::string& name : names_in(folder))
    if (is_variant(name, stem + ".", ".safetensors") ||
        is_variant(name, stem + std::string(kIndex) + ".", ".json"))
      variants.push_back(name);
  if (variants.size() > 1)
    throw Error(Exit::data, "E_WEIGHTS_SEVERAL",
                fmt::format("several variants of the weights, and no {}.safetensors: {}", stem,
                            fmt::join(variants, ", ")))
        .at("file", folder)
        .hint("name the file, or leave one in the folder");
  return variants.empty() ? "" : folder + "/" + variants.front();
}

constexpr size_t kLargeBytes = size_t{256} << 20;

void hold_against_hashes(const SafetensorsFile& file) {
  verify_recorded_hash(file);
  verify_weights(file);
}

std::shared_ptr<const SafetensorsFile> open_held(const std::string& path, Verification verification) {
  return SafetensorsFile::open(path, hold_against_hashes,
                               verification == Verification::in_background ? kLargeBytes : SIZE_MAX);
}

bool is_index(const std::string& path) {
  const size_t at = path.rfind(kIndex);
  return at != std::string::npos && path.ends_with(".json");
}

}  // namespace

// One file, an index or a variant of that name; "": none.
static std::string find_stem(const std::string& folder, const std::string& stem) {
  const std::string file = folder + "/" + stem + ".safetensors";
  if (is_there(file)) return file;
  if (is_there(file + ".index.json")) return file + ".index.json";
  return find_variant(folder, stem);
}

std::string find_weights(const std::string& folder) {
  for (const auto& [part, stem] : kStems)
    if (std::string found = find_stem(folder + part, stem); !found.empty()) return found;
  return "";
}

// transformers 5 leaves the prefix out, before 4.31 it wrote a buffer of positions too; a whole CLIP has another half.
static std::string text_encoder_name(const std::string& name) {
  for (const char* other : {"vision_model.", "visual_projection.", "text_projection.", "logit_scale"})
    if (name.starts_with(other)) return "";
  if (name.ends_with("embeddings.position_ids")) return "";
  return name.starts_with("text_model.") ? name : "text_model." + name;
}

std::map<std::string, std::string> find_networks(const std::string& folder) {
  std::map<std::string, std::string> networks;
  for (const auto& [network, stem] : {std::pair{"unet", "diffusion_pytorch_model"},
                                      {"text_encoder", "model"},
                                      {"vae", "diffusion_pytorch_model"}})
    if (std::string found = find_stem(folder + "/" + network, stem); !found.empty())
      networks[network] = found;
  return networks.contains("unet") && networks.size() > 1 ? networks : decltype(networks)();
}

std::shared_ptr<const SafetensorsFile> open_networks(const std::string& folder,
                                                     const std::map<std::string, std::string>& networks,
                                                     Verification verification) {
  std::vector<SafetensorsFile::Part> parts;
  for (const auto& [network, file] : networks)
    parts.push_back({open_weights(file, verification), network + ".",
                     network == "text_encoder" ? text_encoder_name : nullptr});
  return SafetensorsFile::join(folder + "/model_index.json", std::move(parts));
}

std::string find_foreign_weights(const std::string& folder) {
  for (const char* part : {"", "/unet"})
    for (const char* name : {"diffusion_pytorch_model.bin", "pytorch_model.bin", "model.pt", "model.pth",
                             "model.ckpt", "model.h5", "model.onnx", "flax_model.msgpack"})
      if (const std::string file = folder + part + "/" + name; is_file(file)) return file;
  return "";
}

std::map<std::string, std::string> parse_weight_map(std::string_view text, const std::string& path) {
  const auto bad = [&](const std::string& message) {
    return Error(Exit::data, "E_WEIGHTS_INDEX", message).at("file", path);
  };
  const auto index = nlohmann::json::parse(text, nullptr, false);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty())
    throw bad("expected an object with a \"weight_map\" of tensors and their files");
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    // A file beside the index: what comes from outside names nothing else of ours.
    if (name.empty() || name.find('/') != std::string::npos || !name.ends_with(".safetensors"))
      throw bad("expected the name of a safetensors file beside the index").at("tensor", tensor);
    files[tensor] = name;
  }
  return files;
}

std::shared_ptr<const SafetensorsFile> open_weights(const std::string& path, Verification verification) {
  if (!is_index(path)) return open_held(path, verification);
  const MappedFile index(path);
  const auto file_of = parse_weight_map(index.text(), path);
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> parts;
  for (const auto& [tensor, name] : file_of)
    if (!parts.contains(name)) parts[name] = open_held(parent_folder(path) + "/" + name, verification);
  std::vector<SafetensorsFile::Part> files;
  for (const auto& [name, part] : parts) {
    for (const StoredTensor& t : part->tensors())
      if (const auto at = file_of.find(t.name); at == file_of.end() || at->second != name)
        throw Error(Exit::data, "E_WEIGHTS_INDEX",
                    fmt::format("{} holds a tensor that the index {}", name,
                                at == file_of.end() ? "does not name" : "has in " + at->second))
            .at("file", path)
            .at("tensor", t.name);
    files.push_back({part});
  }
  for (const auto& [tensor, name] : file_of)
    if (!parts.at(name)->find(tensor))
      throw Error(Exit::data, "E_WEIGHTS_INDEX", fmt::format("{} does not hold the tensor", name))
          .at("file", path)
          .at("tensor", tensor);
  return SafetensorsFile::join(path, std::move(files));
}

}  // namespace lockstep
