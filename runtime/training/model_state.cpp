// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/model_state.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "kernels/core/bf16.h"
#include "kernels/random/normal.h"

namespace lockstep {

ModelState::ModelState(ParameterTable t, const ModelArrays& arrays, Communicator& comm)
    : table(std::move(t)) {
  const int64_t bytes = table.trained_length * 4;
  parameters = AlignedBuffer(table.length * 4);
  gradients = comm.allocate(arrays.gradients ? bytes : kMetricsFloats * 4);
  buffers = AlignedBuffer(table.buffer_length * 4);
  for (int i = 0; i < arrays.partial_sums; ++i) partial_sums.emplace_back(bytes);
  for (int i = 0; i < arrays.state; ++i) state.emplace_back(bytes);
  if (arrays.ema) ema = AlignedBuffer(bytes);
  if (arrays.half) half = AlignedBuffer(table.length * size_of(DType::bf16));
}

void ModelState::round_parameters() {
  if (half.bytes() == 0) return;
  const float* p = parameters.as<float>();
  std::transform(p, p + table.length, half.as<bf16>(), [](float x) { return bf16(x); });
}

void ModelState::start_ema() {
  if (has_ema()) std::copy_n(parameters.as<float>(), table.trained_length, ema.as<float>());
}

std::span<float> ModelState::parameter(const std::string& name) {
  const FlatEntry& e = table.parameter(name);
  return {parameters.as<float>() + e.begin, static_cast<size_t>(e.shape.elements())};
}

const float* ModelState::at(const std::string& name) const {
  if (const auto found = in_file_.find(name); found != in_file_.end()) return found->second;
  return parameters.as<float>() + table.parameter(name).begin;
}

void ModelState::release(const std::string& name) const {
  const auto found = in_file_.find(name);
  if (found == in_file_.end()) return;
  // Whole pages, of neighbours too.
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(found->second) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(found->second + table.parameter(name).shape.elements());
  ::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

std::span<float> ModelState::buffer(const std::string& name) {
  const FlatEntry& e = table.buffer(name);
  return {buffers.as<float>() + e.begin, static_cast<size_t>(e.shape.elements())};
}

void ModelState::initialise(uint64_t seed) {
  for (size_t i = 0; i < table.order.size(); ++i) {
    const FlatEntry& e = *table.find(table.order[i]);
    const bool is_buffer =
        std::any_of(table.buffers.begin(), table.buffers.end(), [&](auto& b) { return b.name == e.name; });
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
        x[k + j] = uniform ? e.init.bound * (2 * uniform01(draw.x[j]) - 1) : e.init.deviation * normals.x[j];
    }
  }
}

}  // namespace lockstep
