// SPDX-License-Identifier: Apache-2.0
// Weights and inputs of the UNet golden files by formula: tests/golden/unet_weights.py.
#pragma once

#include <zlib.h>

#include <cmath>
#include <span>
#include <string>

#include "kernels/core/tensor.h"

namespace lockstep::testing {

// float32 in [-0.5, 0.5): the upper 24 bits of a hash of the index (splitmix32).
inline float formula_uniform(uint64_t index, uint64_t seed) {
  auto x = static_cast<uint32_t>(index + seed * 0x9E3779B9u);
  x += 0x9E3779B9u;
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  x ^= x >> 16;
  return static_cast<float>(static_cast<double>(x >> 8) * 0x1p-24 - 0.5);
}

inline void formula_weight(const std::string& name, const Shape& shape, std::span<float> out) {
  const auto seed =
      crc32(0, reinterpret_cast<const Bytef*>(name.data()), static_cast<uInt>(name.size())) % 65536;
  const bool vector = shape.rank() == 1;
  const float base = name.find("norm") != std::string::npos && name.ends_with("weight") ? 1.0f : 0.0f;
  const auto scale = static_cast<float>(3.0 / std::sqrt(static_cast<double>(shape.elements_from(1))));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = vector ? base + 0.25f * formula_uniform(i, seed) : scale * formula_uniform(i, seed);
}

}  // namespace lockstep::testing
