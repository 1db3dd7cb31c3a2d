// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/weights_hash.h"

#include <algorithm>
#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/hash.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

using nlohmann::ordered_json;

constexpr const char* kDescription = "/model.json";

std::string hash_of_file(const std::string& path) { return sha256_hex(MappedFile(path).bytes()); }

// Of the file that these tensors become.
std::string hash_of_tensors(std::span<const StoredTensor> tensors) {
  const SafetensorsWriter writer = model_writer(tensors);
  Digest digest("sha256");
  digest.add(writer.header().data(), writer.header().size());
  for (const StoredTensor& t : writer.tensors()) digest.add(t.bytes.data(), t.bytes.size());
  return digest.hex();
}

void write_description(const std::string& folder, ordered_json description,
                       const std::map<std::string, std::vector<std::string>>& hashes) {
  description["weights"] = hashes;
  write_file_atomically(folder + kDescription, json_text(description, 1) + "\n");
}

// Against "weights" of that description, where it speaks of the file.
void expect_hash(const std::string& description, const std::string& name, const SafetensorsFile& file) {
  const auto damaged = [&](const std::string& message) {
    return Error(Exit::data, "E_WEIGHTS_HASH", message)
        .at("file", file.path())
        .at("description", description);
  };
  const auto json = nlohmann::json::parse(MappedFile(description).text(), nullptr, false);
  if (!json.is_object()) throw damaged("the model.json beside the weights is no JSON object");
  const auto weights = json.find("weights");
  if (weights == json.end()) return;
  if (!weights->is_object()) throw damaged("\"weights\" is no object");
  const auto hashes = weights->find(name);
  if (hashes == weights->end()) return;
  const std::string found = sha256_hex(file.bytes());
  if (!hashes->is_array() || std::find(hashes->begin(), hashes->end(), found) == hashes->end())
    throw damaged(
        fmt::format("the weights are not those that were written: SHA-256 {}, expected {}", found,
                    hashes->is_array() && !hashes->empty() ? json_text(hashes->front()) : "an array"))
        .hint("a copy that is whole, or a checkpoint of the run");
}

}  // namespace

FileHashes export_described(const std::string& folder, std::span<const ExportedWeights> files,
                            ordered_json description, const FileHashes& previous) {
  FileHashes hashes;
  std::map<std::string, std::vector<std::string>> before, after;
  bool replaces = false;
  for (const auto& [file, tensors] : files) {
    const std::string path = folder + "/" + file;
    hashes[file] = hash_of_tensors(tensors);
    before[file] = after[file] = {hashes[file]};
    if (!is_file(path)) continue;
    replaces = true;
    before[file].push_back(previous.contains(file) ? previous.at(file) : hash_of_file(path));
  }
  if (replaces) write_description(folder, description, before);
  for (const auto& [file, tensors] : files) export_model(folder + "/" + file, tensors);
  write_description(folder, std::move(description), after);
  return hashes;
}

std::string hash_of_weights(const SafetensorsFile& file) {
  Digest digest("sha256");
  digest.add(file.header().data(), file.header().size());
  for (const StoredTensor& t : file.tensors())
    digest.add(fmt::format("{:016x}", checksum(t.bytes.data(), t.bytes.size())));
  return digest.hex();
}

void verify_weights(const SafetensorsFile& file) {
  const std::filesystem::path path = absolute_path(file.path());
  const std::filesystem::path here = path.parent_path(), above = here.parent_path();
  for (const auto& [folder, name] :
       {std::pair{here, path.filename()}, {above, here.filename() / path.filename()}})
    if (const std::string description = folder.string() + kDescription; is_file(description))
      return expect_hash(description, name.string(), file);
}

}  // namespace lockstep
