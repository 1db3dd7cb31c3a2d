#include "runtime/training/model_state.h"

#include <algorithm>

#include "kernels/core/normal.h"

namespace lockstep {

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
    const bool uniform = e.init.kind == Init::Kind::uniform;
    for (size_t k = 0; k < x.size(); k += 4) {
      const auto draw = random4(seed, stream::kInit, 0, static_cast<int64_t>(i), static_cast<int64_t>(k / 4));
      const Normal4 normals = uniform ? Normal4{} : normal4(draw);
      for (size_t j = 0; j < std::min<size_t>(4, x.size() - k); ++j)
        x[k + j] =
            uniform ? e.init.bound * (2 * uniform01(draw.x[j]) - 1) : e.init.deviation * normals.x[j];
    }
  }
}

}  // namespace lockstep
