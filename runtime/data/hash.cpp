// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/hash.h"

#include <openssl/evp.h>

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/core/error.h"

namespace lockstep {

Digest::Digest(const char* algorithm)
    : context_(EVP_MD_CTX_new(), [](void* p) { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(p)); }) {
  const EVP_MD* md = EVP_get_digestbyname(algorithm);
  LOCKSTEP_ASSERT(
      md && context_ && EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_.get()), md, nullptr) == 1, "{}",
      algorithm);
}

void Digest::add(const void* data, size_t n) {
  LOCKSTEP_ASSERT(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_.get()), data, n) == 1);
}

std::string Digest::hex() {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  LOCKSTEP_ASSERT(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_.get()), bytes, &length) == 1);
  std::string text;
  for (unsigned i = 0; i < length; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

uint64_t checksum(const void* bytes, size_t n) {
  const auto* data = static_cast<const uint8_t*>(bytes);
  constexpr uint64_t kPrime = 0x9E3779B185EBCA87u;
  // Eight lanes of multiply and rotate. Each step is a bijection of its lane, so a change within one word
  // always shows.
  uint64_t lane[8];
  for (uint64_t i = 0; i < 8; ++i) lane[i] = kPrime * (i + 1) + n;
  const auto step = [&](uint64_t& h, uint64_t word) { h = std::rotl((h ^ word) * kPrime, 31); };
  size_t at = 0;
  for (; at + 64 <= n; at += 64)
    for (size_t i = 0; i < 8; ++i) {
      uint64_t word;
      std::memcpy(&word, data + at + 8 * i, 8);
      step(lane[i], word);
    }
  for (; at < n; ++at) step(lane[at % 8], data[at]);
  uint64_t h = 0;
  for (uint64_t l : lane) step(h, l);
  return h;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Digest digest("sha256");
  digest.add(bytes.data(), bytes.size());
  return digest.hex();
}

}  // namespace lockstep
