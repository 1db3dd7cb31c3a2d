// SPDX-License-Identifier: Apache-2.0
// Division by a number that the host knows: a multiplication and a shift (Granlund and Montgomery, "Division
// by Invariant Integers using Multiplication", 1994).
#pragma once

#include <bit>

#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

// n / divisor for 0 <= n < 2^31.
class Divider {
 public:
  Divider() = default;
  explicit Divider(int64_t divisor) : divisor_(static_cast<uint32_t>(divisor)) {
    LOCKSTEP_ASSERT(divisor > 0 && divisor < int64_t{1} << 31, "a divisor of {}", divisor);
    shift_ = static_cast<uint32_t>(std::bit_width(divisor_ - 1));
    factor_ =
        static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor_)) / divisor_ + 1);
  }
  __device__ int divide(int n) const {
    const auto u = static_cast<uint32_t>(n);
    return static_cast<int>((static_cast<uint32_t>(uint64_t{u} * factor_ >> 32) + u) >> shift_);
  }
  __device__ int rest(int n, int quotient) const { return n - quotient * static_cast<int>(divisor_); }

 private:
  uint32_t divisor_ = 1, factor_ = 1, shift_ = 0;
};

}  // namespace lockstep::LOCKSTEP_DEVICE
