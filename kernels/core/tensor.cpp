// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/tensor.h"

namespace lockstep {

const char* name(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::u8:
      return "u8";
    case DType::i32:
      return "i32";
  }
  return "?";
}

const char* name(Layout l) {
  switch (l) {
    case Layout::plain:
      return "plain";
    case Layout::nhwc:
      return "nhwc";
    case Layout::lanes:
      return "lanes";
  }
  return "?";
}

void Shape::wraps(int first) const {
  throw Error(Exit::config, "E_TOO_LARGE",
              fmt::format("64 bits do not hold the number of elements of {}{}", text(),
                          first > 0 ? fmt::format(" from dimension {} on", first) : ""));
}

std::string Shape::text() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
  return s + "]";
}

std::string TensorSpec::text() const {
  return fmt::format("{}{}:{}", lockstep::name(dtype), shape.text(), lockstep::name(layout));
}

}  // namespace lockstep
