// What a model is in memory: flat arrays of parameters, gradients, optimizer state and buffers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/device/memory.h"
#include "runtime/graph/parameter_table.h"

namespace lockstep {

struct ModelState {
  ModelState(ParameterTable parameter_table, int state_arrays, bool with_gradients);

  ParameterTable table;
  AlignedBuffer parameters, gradients, buffers;
  std::vector<AlignedBuffer> state;
  int64_t batches_tracked = 0;  // batch norm's num_batches_tracked

  std::span<float> parameter(const std::string& name);
  std::span<float> buffer(const std::string& name);
  // Each tensor's initial distribution, drawn by (seed, position in order of creation, element).
  void initialise(uint64_t seed);
};

}  // namespace lockstep
