// The safetensors format (https://github.com/huggingface/safetensors, "Format"): 8 bytes of little-endian
// header length, a JSON header, then the tensors' bytes. PyTorch and diffusers read and write the same files.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lockstep {

struct StoredTensor {
  std::string name;
  std::string dtype;           // "F32", "BF16", "I64", "I32", "U8"
  std::vector<int64_t> shape;  // empty: a scalar
  std::span<const std::byte> bytes;
};

// Writes to `path` and fsyncs it. Errors: cannot_create (73), io (74). Deterministic: tensors by name order given,
// metadata sorted.
void write_safetensors(const std::string& path, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata);

// A whole file, validated on opening: header length, JSON, dtypes, shapes against offsets, offsets contiguous
// and inside the file, no duplicate names. Errors: no_input (66), data (65) with file and offset or tensor.
class SafetensorsFile {
 public:
  static std::shared_ptr<const SafetensorsFile> open(const std::string& path);
  virtual ~SafetensorsFile() = default;
  virtual std::span<const StoredTensor> tensors() const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
  const StoredTensor* find(const std::string& name) const;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace lockstep
