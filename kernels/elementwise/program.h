// SPDX-License-Identifier: Apache-2.0
// An elementwise program with every register given a place: a tensor, or a slot of one tile's length.
#pragma once

#include <vector>

#include "kernels/elementwise/elementwise.h"

namespace lockstep::elementwise {

struct Place {
  enum class Kind : uint8_t { input, output, slot } kind = Kind::input;
  int index = 0;
  bool operator==(const Place&) const = default;
};

struct Step {
  Elt op;
  Place a, b, to;  // `to` may be a's or b's slot
  float imm = 0;
};

inline constexpr int kMaxSlots = ElementwiseParams::kMaxRegisters;

struct Program {
  std::vector<Step> steps;  // run one after the other over a tile
  int slots = 0;
};

// An output may share an input's buffer, which one is not known here: no output is written before the last
// step that reads any input.
Program compile(const ElementwiseParams&);

}  // namespace lockstep::elementwise
