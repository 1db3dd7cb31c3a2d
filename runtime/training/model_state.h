// SPDX-License-Identifier: Apache-2.0
// What a model is in memory: flat arrays of parameters, gradients, optimizer state, moving average and
// buffers. Of frozen networks there are parameters alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/device/memory.h"
#include "runtime/graph/parameter_table.h"

namespace lockstep {

// Which arrays a ModelState has beside parameters and buffers.
struct ModelArrays {
  bool gradients = true;
  int partial_sums = 0;  // of gradients, beside their own array
  int state = 0;
  bool ema = false, half = false;
};

struct ModelState {
  // The gradients lie in memory of the communicator that reduces them. Collective.
  ModelState(ParameterTable parameter_table, const ModelArrays& arrays, Communicator& comm);

  ParameterTable table;
  AlignedBuffer parameters, gradients, buffers;
  AlignedBuffer ema;   // of the trained parameters; empty where there is none
  AlignedBuffer half;  // the parameters in bf16, for training in bf16; else empty
  std::vector<AlignedBuffer> partial_sums;
  std::vector<AlignedBuffer> state;
  int64_t batches_tracked = 0;  // batch norm's num_batches_tracked

  std::span<float> parameter(const std::string& name);
  // A parameter that is only read may lie elsewhere than in `parameters`: in a file that is mapped and outlives this.
  void place(const std::string& name, const float* in_file) { in_file_[name] = in_file; }
  // Where it lies.
  const float* at(const std::string& name) const;
  // Of those in a file: gives their pages back. Where they are read again, the file is.
  void release(const std::string& name) const;
  std::span<float> buffer(const std::string& name);
  // Each tensor's initial distribution, drawn by (seed, position in order of creation, element):
  // the same on every rank.
  void initialise(uint64_t seed);
  bool has_ema() const { return ema.bytes() > 0; }
  // The average begins with the parameters as they are.
  void start_ema();
  // The bf16 copies of the parameters, after these were initialised or loaded; later the optimizer writes
  // them.
  void round_parameters();

 private:
  std::unordered_map<std::string, const float*> in_file_;
};

}  // namespace lockstep
