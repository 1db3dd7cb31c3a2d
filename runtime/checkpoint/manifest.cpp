// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/manifest.h"

#include "kernels/core/error.h"
#include "runtime/data/hash.h"
#include "runtime/files/json_value.h"

namespace lockstep {
namespace {

constexpr const char* kFormat = "lockstep-checkpoint-1";

std::string seal(std::string_view body) {
  return fmt::format(",\n \"sha256\": \"{}\"\n}}\n", sha256_hex(std::as_bytes(std::span(body))));
}

Error damaged(const std::string& path, const std::string& message) {
  return Error(Exit::data, "E_CKPT_HASH", message).at("file", path);
}

void expect_hash(const std::string& path, const std::string& what, const nlohmann::json& expected,
                 std::span<const std::byte> bytes, const std::string& tensor = {}) {
  const std::string found = sha256_hex(bytes);
  if (expected == found) return;
  Error error =
      damaged(path, fmt::format("{}: expected SHA-256 {}, found {}", what,
                                expected.is_string() ? expected.get<std::string>() : "none", found));
  if (!tensor.empty()) error.add_place("tensor", tensor);
  throw error;
}

}  // namespace

nlohmann::json describe_safetensors(const SafetensorsWriter& writer, std::span<const StoredTensor> tensors) {
  nlohmann::json hashes = nlohmann::json::object();
  for (const StoredTensor& t : tensors) hashes[t.name] = sha256_hex(t.bytes);
  return {{"bytes", writer.file_bytes()},
          {"header", sha256_hex(writer.header())},
          {"tensors", std::move(hashes)}};
}

nlohmann::json describe_text(std::string_view text) {
  return {{"bytes", text.size()}, {"sha256", sha256_hex(std::as_bytes(std::span(text)))}};
}

std::string seal_manifest(const nlohmann::json& files) {
  std::string text = json_text(nlohmann::json{{"files", files}, {"format", kFormat}}, 1);
  text.resize(text.size() - std::string_view("\n}").size());
  return text + seal(text);
}

nlohmann::json read_manifest(const std::string& path) {
  const MappedFile file(path);
  const std::string_view text = file.text();
  const size_t seal_size = seal("").size();
  if (text.size() < seal_size)
    throw damaged(path,
                  fmt::format("truncated: expected at least {} bytes, found {}", seal_size, text.size()));
  const std::string_view body = text.substr(0, text.size() - seal_size);
  const std::string_view found = text.substr(body.size());
  if (const std::string expected = seal(body); found != expected)
    throw damaged(
        path,
        fmt::format("manifest: expected to end in {}, found {}", json_text(nlohmann::json(expected)),
                    nlohmann::json(found).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)));
  // Sealed, so these can fail only for what another program has made.
  const nlohmann::json manifest = nlohmann::json::parse(text, nullptr, false);
  if (json_member(manifest, "format") != kFormat || !json_member(manifest, "files").is_object())
    throw damaged(path, fmt::format("expected a manifest of format {}", kFormat));
  return json_member(manifest, "files");
}

void verify_safetensors(const nlohmann::json& files, const std::string& name, const SafetensorsFile& file) {
  const nlohmann::json& entry = json_member(files, name);
  expect_hash(file.path(), "header", json_member(entry, "header"), file.header());
  const nlohmann::json& hashes = json_member(entry, "tensors");
  for (const StoredTensor& t : file.tensors())
    expect_hash(file.path(), fmt::format("tensor \"{}\"", t.name), json_member(hashes, t.name), t.bytes,
                t.name);
}

void verify_text(const nlohmann::json& files, const std::string& name, const MappedFile& file,
                 const std::string& path) {
  const nlohmann::json& entry = json_member(files, name);
  const nlohmann::json& bytes = json_member(entry, "bytes");
  if (bytes != file.bytes().size())
    throw damaged(path, fmt::format("expected {} bytes, found {}", json_text(bytes), file.bytes().size()));
  expect_hash(path, name, json_member(entry, "sha256"), file.bytes());
}

}  // namespace lockstep
