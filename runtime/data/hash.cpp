// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/hash.h"

#include <openssl/evp.h>

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

std::string sha256_hex(std::span<const std::byte> bytes) {
  Digest digest("sha256");
  digest.add(bytes.data(), bytes.size());
  return digest.hex();
}

}  // namespace lockstep
