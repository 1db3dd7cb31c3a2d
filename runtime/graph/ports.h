// SPDX-License-Identifier: Apache-2.0
// What a plan takes from the host for a run: named tensors, held against the plan's ports.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernels/core/step_state.h"
#include "runtime/graph/graph.h"

namespace lockstep {

// Names of the ports that graphs of this project have.
inline constexpr const char* kImages = "images";
inline constexpr const char* kLabels = "labels";
inline constexpr const char* kTimesteps = "timesteps";
inline constexpr const char* kTokens = "tokens";
inline constexpr const char* kText = "text";
inline constexpr const char* kMoments = "moments";
// The executor's own input: StepInputs::state.
inline constexpr const char* kStepState = "step_state";

// A value of storage `input` or `output`, plain: dimension 0 counts samples.
struct Port {
  std::string name;
  TensorSpec spec;
  bool read = true;  // an input that no node reads need not be given
};
// In the graph's order, without the step state.
std::vector<Port> input_ports(const Graph& graph);
std::vector<Port> output_ports(const Graph& graph);
// "images u8 [4, 1, 28, 28], labels i32 [4]", for messages.
std::string text_of(std::span<const Port> ports);

template <class T>
constexpr DType port_dtype() {
  if constexpr (std::is_same_v<T, uint8_t>) return DType::u8;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, float>) return DType::f32;
}

// A tensor for a port; the memory is the caller's.
struct InputTensor {
  std::string_view port;
  DType dtype = DType::f32;
  const void* data = nullptr;
  int64_t bytes = 0;
};

class StepInputs {
 public:
  StepState state;
  bool stop = false;  // this rank wishes to stop: reaches all with the metrics

  // Allocates nothing. A port that was set before gets the new tensor.
  void set(const InputTensor& tensor) {
    for (size_t i = 0; i < count_; ++i)
      if (tensors_[i].port == tensor.port) return void(tensors_[i] = tensor);
    LOCKSTEP_ASSERT(count_ < tensors_.size());
    tensors_[count_++] = tensor;
  }
  template <class T>
  void set(std::string_view port, const T* data, int64_t elements) {
    set({port, port_dtype<T>(), data, elements * static_cast<int64_t>(sizeof(T))});
  }
  template <class Values>
  void set(std::string_view port, const Values& values) {
    set(port, values.data(), static_cast<int64_t>(values.size()));
  }
  std::span<const InputTensor> tensors() const { return {tensors_.data(), count_}; }

 private:
  std::array<InputTensor, 8> tensors_;
  size_t count_ = 0;
};

// Which tensor each port gets: a pointer a port, null where none was given and none is needed. Throws
// Error(Exit::usage, "E_PORT") where a name is no port, a port that is read has no tensor, or dtype or size
// differ.
void match_ports(std::span<const Port> ports, std::span<const InputTensor> tensors,
                 std::span<const void*> pointers);

}  // namespace lockstep
