// SPDX-License-Identifier: Apache-2.0
// Products and sums of sizes, none of them negative, that never wrap around.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>

#include "kernels/core/error.h"

namespace lockstep {

// The bytes of one tensor are fewer: what a process of a 64-bit machine can address.
inline constexpr int64_t kAddressable = int64_t{1} << 47;

// None where 64 bits do not hold it.
inline std::optional<int64_t> product_of(std::span<const int64_t> sizes) {
  int64_t all = 1;
  bool wraps = false, zero = false;
  for (int64_t size : sizes) zero |= size == 0, wraps |= __builtin_mul_overflow(all, size, &all);
  if (zero) return 0;
  return wraps ? std::nullopt : std::optional(all);
}

[[noreturn]] inline void too_large(const char* what) {
  throw Error(Exit::config, "E_TOO_LARGE", fmt::format("64 bits do not hold {}", what));
}

// Error config (78) E_TOO_LARGE that says what was counted, where 64 bits do not hold it.
inline int64_t checked_product(const char* what, std::initializer_list<int64_t> sizes) {
  const auto product = product_of(std::span(sizes.begin(), sizes.size()));
  if (!product) [[unlikely]]
    too_large(what);
  return *product;
}
inline int64_t checked_sum(const char* what, std::initializer_list<int64_t> sizes) {
  int64_t sum = 0;
  for (int64_t size : sizes)
    if (__builtin_add_overflow(sum, size, &sum)) [[unlikely]]
      too_large(what);
  return sum;
}

}  // namespace lockstep
