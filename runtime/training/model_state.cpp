#include "runtime/training/model_state.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/core/philox.h"

namespace lockstep {
namespace {

// Number k of the four normals in a draw (Box, Muller: "A note on the generation of random normal deviates",
// 1958). Not the same bits on every machine: rank 0 draws for all.
double normal(const Philox4& draw, size_t k) {
  const double u = (draw.x[k & 2] + 0.5) * 0x1p-32, angle = 2 * std::numbers::pi * draw.x[k | 1] * 0x1p-32;
  return std::sqrt(-2 * std::log(u)) * (k & 1 ? std::sin(angle) : std::cos(angle));
}

}  // namespace

ModelState::ModelState(ParameterTable t, int state_arrays, bool with_gradients) : table(std::move(t)) {
  const int64_t bytes = table.length * 4;
  parameters = AlignedBuffer(bytes);
  gradients = AlignedBuffer(with_gradients ? bytes : kMetricsFloats * 4);
  buffers = AlignedBuffer(table.buffer_length * 4);
  for (int i = 0; i < state_arrays; ++i) state.emplace_back(bytes);
}

std::span<float> ModelState::parameter(const std::string& name) {
  const FlatEntry& e = table.parameter(name);
  return {parameters.as<float>() + e.begin, static_cast<size_t>(e.shape.elements())};
}

std::span<float> ModelState::buffer(const std::string& name) {
  const FlatEntry& e = table.buffer(name);
  return {buffers.as<float>() + e.begin, static_cast<size_t>(e.shape.elements())};
}

void ModelState::initialise(uint64_t seed) {
  for (size_t i = 0; i < table.order.size(); ++i) {
    const FlatEntry& e = *table.find(table.order[i]);
    const bool is_buffer = std::any_of(table.buffers.begin(), table.buffers.end(), [&](auto& b) { return b.name == e.name; });
    const auto x = is_buffer ? buffer(e.name) : parameter(e.name);
    if (e.init.kind == Init::Kind::constant) {
      std::fill(x.begin(), x.end(), e.init.constant);
      continue;
    }
    for (size_t k = 0; k < x.size(); ++k) {
      const auto draw = random4(seed, stream::kInit, 0, static_cast<int64_t>(i), static_cast<int64_t>(k / 4));
      x[k] = e.init.kind == Init::Kind::uniform ? e.init.bound * (2 * uniform01(draw.x[k % 4]) - 1)
                                                : static_cast<float>(e.init.deviation * normal(draw, k % 4));
    }
  }
}

}  // namespace lockstep
