// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/core/sizes.h"
#include "runtime/checkpoint/foreign_file.h"
#include "runtime/checkpoint/safetensors_header.h"
#include "runtime/files/json_text.h"

namespace lockstep {
namespace {

constexpr std::array<std::pair<std::string_view, int64_t>, 15> kDtypes{{{"F32", 4},
                                                                        {"BF16", 2},
                                                                        {"F16", 2},
                                                                        {"F64", 8},
                                                                        {"I64", 8},
                                                                        {"I32", 4},
                                                                        {"I16", 2},
                                                                        {"I8", 1},
                                                                        {"U64", 8},
                                                                        {"U32", 4},
                                                                        {"U16", 2},
                                                                        {"U8", 1},
                                                                        {"BOOL", 1},
                                                                        {"F8_E4M3", 1},
                                                                        {"F8_E5M2", 1}}};
constexpr size_t kPrefix = 8;                 // the header length's bytes
constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr std::string_view kMetadata = "__metadata__";

// Bytes of a tensor; nullopt where the product overflows.
std::optional<int64_t> tensor_bytes(const std::vector<int64_t>& shape, int64_t element) {
  const auto elements = product_of(shape);
  return elements ? product_of(std::array{*elements, element}) : std::nullopt;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

uint64_t read_little_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = kPrefix; i-- > 0;) value = value << 8 | static_cast<uint64_t>(bytes[i]);
  return value;
}

}  // namespace

int64_t safetensors_dtype_size(std::string_view dtype) {
  for (const auto& [name, size] : kDtypes)
    if (name == dtype) return size;
  return 0;
}

SafetensorsWriter::SafetensorsWriter(std::span<const StoredTensor> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : tensors_(tensors.begin(), tensors.end()) {
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return safetensors_dtype_size(a.dtype) > safetensors_dtype_size(b.dtype);
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t offset = 0;
  for (const StoredTensor& t : tensors_) {
    LOCKSTEP_ASSERT(t.name != kMetadata && !header.contains(t.name), "tensor name {} is taken", t.name);
    const int64_t element = safetensors_dtype_size(t.dtype);
    const bool non_negative = std::all_of(t.shape.begin(), t.shape.end(), [](int64_t d) { return d >= 0; });
    LOCKSTEP_ASSERT(
        element > 0 && non_negative && tensor_bytes(t.shape, element) == static_cast<int64_t>(t.bytes.size()),
        "tensor {}: {} bytes are no {}{}", t.name, t.bytes.size(), t.dtype, shape_text(t.shape));
    const int64_t end = offset + static_cast<int64_t>(t.bytes.size());
    header[t.name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string json = json_text(header);
  json.append((kPrefix - json.size() % kPrefix) % kPrefix, ' ');
  LOCKSTEP_ASSERT(json.size() <= kMaxHeader, "a header of {} bytes", json.size());
  for (size_t i = 0; i < kPrefix; ++i) header_ += static_cast<char>(json.size() >> (8 * i) & 0xff);
  header_ += json;
  file_bytes_ = static_cast<int64_t>(header_.size()) + offset;
}

void SafetensorsWriter::write(const std::string& path) const {
  OutputFile file(path);
  file.write(header_);
  for (const StoredTensor& t : tensors_) file.write(t.bytes);
  file.sync_and_close();
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  return std::shared_ptr<const SafetensorsFile>(new SafetensorsFile(path));
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::string& path,
                                                             void (*verify)(const SafetensorsFile&),
                                                             size_t in_background_from) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(path));
  if (file->bytes().size() < in_background_from)
    verify(*file);
  else
    file->verdict_ = std::async(std::launch::async, [verify, f = file.get()] { verify(*f); }).share();
  return file;
}

void SafetensorsFile::await_verified() const {
  for (const Part& part : parts_) part.file->await_verified();
  if (verdict_.valid()) verdict_.get();
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::join(const std::string& path,
                                                             std::vector<Part> parts) {
  return std::shared_ptr<const SafetensorsFile>(new SafetensorsFile(path, std::move(parts)));
}

SafetensorsFile::SafetensorsFile(const std::string& path, std::vector<Part> parts)
    : path_(path), parts_(std::move(parts)) {
  for (const Part& part : parts_) {
    metadata_.insert(part.file->metadata().begin(), part.file->metadata().end());
    for (StoredTensor t : part.file->tensors()) {
      const std::string name = part.rename ? part.rename(t.name) : t.name;
      if (name.empty()) continue;
      if (!index_.emplace(part.prefix + name, tensors_.size()).second)
        throw Error(Exit::data, "E_SAFETENSORS",
                    fmt::format("two tensors are called {}{}", part.prefix, name))
            .at("file", part.file->path())
            .at("tensor", t.name);
      t.name = part.prefix + name;
      tensors_.push_back(std::move(t));
    }
  }
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  file_.emplace(path);
  const auto bad = [&](const std::string& message) {
    return Error(Exit::data, "E_SAFETENSORS", message).at("file", path_);
  };
  const std::span<const std::byte> bytes = file_->bytes();
  if (bytes.size() < kPrefix)
    throw bad(fmt::format("truncated: expected at least {} bytes, found {}", kPrefix, bytes.size()))
        .at("offset", 0);
  const uint64_t length = read_little_endian(bytes);
  const uint64_t most = std::min<uint64_t>(kMaxHeader, bytes.size() - kPrefix);
  if (length > most) {
    if (const auto foreign = foreign_file(bytes))
      throw bad(fmt::format("expected a safetensors file, found {}", foreign->what)).hint(foreign->hint);
    throw bad(fmt::format("header length: expected at most {}, found {}", most, length)).at("offset", 0);
  }
  header_ = bytes.first(kPrefix + length);
  const std::span<const std::byte> data = bytes.subspan(kPrefix + length);

  SafetensorsHeader parsed = parse_safetensors_header(header_.subspan(kPrefix), kPrefix, path_);
  metadata_ = std::move(parsed.metadata);
  // Tensors lie in the order of their offsets; an empty one comes before the one that begins where it does.
  std::sort(parsed.tensors.begin(), parsed.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected_begin = 0;
  for (auto& t : parsed.tensors) {
    const auto bad_tensor = [&](const std::string& message) { return bad(message).at("tensor", t.name); };
    const int64_t element = safetensors_dtype_size(t.dtype);
    if (element == 0) throw bad_tensor(fmt::format("unknown dtype \"{}\"", t.dtype));
    const std::optional<int64_t> size = tensor_bytes(t.shape, element);
    if (!size)
      throw bad_tensor(fmt::format("shape {}: more bytes than 64 bits can count", shape_text(t.shape)));
    if (t.begin > t.end || t.end - t.begin != static_cast<uint64_t>(*size))
      throw bad_tensor(fmt::format("data_offsets: expected {} bytes for {}{}, found [{}, {}]", *size, t.dtype,
                                   shape_text(t.shape), t.begin, t.end));
    if (t.begin != expected_begin)
      throw bad_tensor(
          fmt::format("data_offsets: expected to begin at {} ({} before), found {}", expected_begin,
                      t.begin > expected_begin ? "a gap" : "an overlap with the tensor", t.begin));
    if (t.end > data.size())
      throw bad_tensor(fmt::format("data_offsets: expected to end within the file's {} data bytes, found {}",
                                   data.size(), t.end));
    expected_begin = t.end;
    index_.emplace(t.name, tensors_.size());
    tensors_.push_back({std::move(t.name), std::move(t.dtype), std::move(t.shape),
                        data.subspan(t.begin, static_cast<size_t>(*size))});
  }
  if (expected_begin != data.size())
    throw bad(fmt::format("trailing bytes: expected {} data bytes, found {}", expected_begin, data.size()))
        .at("offset", static_cast<int64_t>(header_.size() + expected_begin));
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace lockstep
