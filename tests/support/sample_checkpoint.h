// SPDX-License-Identifier: Apache-2.0
// A small checkpoint with every kind of tensor: a matrix, a scalar, an empty one, odd byte counts.
#pragma once

#include <array>
#include <numeric>

#include "runtime/checkpoint/checkpoint.h"

namespace lockstep::testing {

class SampleCheckpoint {
 public:
  // `elements`: of the state's one large tensor.
  explicit SampleCheckpoint(int64_t step, size_t elements = 5) : large_(elements) {
    std::iota(weight_.begin(), weight_.end(), static_cast<float>(step));
    std::iota(large_.begin(), large_.end(), static_cast<float>(step) / 3);
    count_ = step;
    contents_.model = {{"conv1.weight", "F32", {2, 1, 3}, std::as_bytes(std::span(weight_))},
                       {"bn.num_batches_tracked", "I64", {}, std::as_bytes(std::span(&count_, 1))},
                       {"empty", "F32", {0, 4}, {}},
                       {"mask", "U8", {3}, std::as_bytes(std::span(mask_))}};
    contents_.state = {
        {"momentum.conv1.weight", "F32", {static_cast<int64_t>(elements)}, std::as_bytes(std::span(large_))}};
    contents_.meta = {{"step", step}, {"epoch", 1.5}, {"kernels", {{"conv2d", "direct"}}}};
  }
  SampleCheckpoint(const SampleCheckpoint&) = delete;
  SampleCheckpoint& operator=(const SampleCheckpoint&) = delete;
  const CheckpointContents& contents() const { return contents_; }

 private:
  std::array<float, 6> weight_{};
  std::vector<float> large_;
  int64_t count_ = 0;
  std::array<uint8_t, 3> mask_{1, 2, 3};
  CheckpointContents contents_;
};

}  // namespace lockstep::testing
