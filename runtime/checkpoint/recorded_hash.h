// SPDX-License-Identifier: Apache-2.0
// Hashes that lie beside files as people get them.
#pragma once

#include <optional>
#include <string>

#include "runtime/checkpoint/safetensors.h"

namespace lockstep {

struct RecordedHash {
  std::string sha256;  // 64 hexadecimal digits
  std::string source;  // the file that says so
};

// SHA-256 of a file, where something says it: SHA256SUMS in its folder or the one above; the blob's name that a link of
// the Hugging Face hub's cache leads to; what its download leaves in .cache/huggingface (older than the file: passed over).
// Errors: io (74), no_permission (77).
std::optional<RecordedHash> recorded_hash(const std::string& path);

// Errors: data (65) with expected and found hash, and those of recorded_hash.
void verify_recorded_hash(const SafetensorsFile& file);

}  // namespace lockstep
