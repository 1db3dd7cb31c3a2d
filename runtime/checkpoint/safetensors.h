// SPDX-License-Identifier: Apache-2.0
// The safetensors format (https://github.com/huggingface/safetensors, "Format"): 8 bytes of little-endian
// header length, a JSON header, then the tensors' bytes. PyTorch and diffusers read and write the same files.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/checkpoint/file_io.h"

namespace lockstep {

struct StoredTensor {
  std::string name;
  std::string dtype;           // "F32", "BF16", "I64", "I32", "U8", ...: the format's names
  std::vector<int64_t> shape;  // empty: a scalar
  std::span<const std::byte>
      bytes;  // row-major, little-endian; in a file not necessarily aligned to the dtype
};

// Bytes per element of a dtype of the format, 0 where the name is none (or one of less than a byte).
int64_t safetensors_dtype_size(std::string_view dtype);

// A file in the making. The constructor checks and lays out: wider dtypes first, so that every tensor is
// aligned to its dtype, otherwise in the order given; metadata sorted. Same tensors, same bytes.
class SafetensorsWriter {
 public:
  SafetensorsWriter(std::span<const StoredTensor> tensors,
                    const std::map<std::string, std::string>& metadata);
  // The length, the JSON and its padding: every byte of the file before the tensors.
  std::span<const std::byte> header() const { return std::as_bytes(std::span(header_)); }
  // As they follow it in the file.
  std::span<const StoredTensor> tensors() const { return tensors_; }
  int64_t file_bytes() const { return file_bytes_; }
  // Writes to `path` and fsyncs it. Errors: cannot_create (73), io (74).
  void write(const std::string& path) const;

 private:
  std::vector<StoredTensor> tensors_;  // as laid out
  std::string header_;
  int64_t file_bytes_ = 0;
};

inline void write_safetensors(const std::string& path, std::span<const StoredTensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter(tensors, metadata).write(path);
}

// A whole file, mapped and validated on opening: header length, JSON, dtypes, shapes against offsets, offsets
// contiguous and to the file's last byte, no duplicate names. Errors: no_input (66), data (65) with file and
// offset or tensor, expected and found.
class SafetensorsFile {
 public:
  static std::shared_ptr<const SafetensorsFile> open(const std::string& path);
  // `verify` throws what is wrong with the file: at once, or of so many bytes and more in a thread of its own, for
  // await_verified().
  static std::shared_ptr<const SafetensorsFile> open(const std::string& path,
                                                     void (*verify)(const SafetensorsFile&),
                                                     size_t in_background_from);
  struct Part {
    std::shared_ptr<const SafetensorsFile> file;
    std::string prefix = {};  // goes before its tensors' names
    // What a tensor is called instead, before the prefix; "": it is left out. None: as it is.
    std::function<std::string(const std::string& name)> rename = {};
  };
  // Several files as one that is known by `path`. Error data (65): two tensors have the same name then.
  static std::shared_ptr<const SafetensorsFile> join(const std::string& path, std::vector<Part> parts);
  const std::string& path() const { return path_; }
  std::span<const StoredTensor> tensors() const { return tensors_; }  // as they lie in the file
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const StoredTensor* find(const std::string& name) const;  // null: not there
  // Waits for the verdict on the file, or on all its parts, and throws it where it is bad. Any number of times.
  void await_verified() const;
  // Of one file: every byte, and those before the tensors, as SafetensorsWriter::header.
  std::span<const std::byte> bytes() const { return file_->bytes(); }
  std::span<const std::byte> header() const { return header_; }

 private:
  explicit SafetensorsFile(const std::string& path);
  SafetensorsFile(const std::string& path, std::vector<Part> parts);
  std::string path_;
  std::optional<MappedFile> file_;  // not of joined ones
  std::vector<Part> parts_;         // whose bytes the tensors are
  std::span<const std::byte> header_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::unordered_map<std::string, size_t> index_;
  std::shared_future<void> verdict_;  // last, as what it waits for reads all the others
};

}  // namespace lockstep
