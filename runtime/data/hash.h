// SPDX-License-Identifier: Apache-2.0
// A message digest over pieces: "sha256" for the content of a set, "md5" where a data set is published with
// one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lockstep {

class Digest {
 public:
  explicit Digest(const char* algorithm);  // a name that OpenSSL knows
  void add(const void* data, size_t n);
  void add(std::string_view text) { add(text.data(), text.size()); }
  std::string hex();  // ends the digest

 private:
  std::shared_ptr<void> context_;
};

// Many times as fast. Tells damage and mix-ups, not malice: whoever can write a cache can write the data.
uint64_t checksum(const void* bytes, size_t n);

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace lockstep
