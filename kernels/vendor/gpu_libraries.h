// SPDX-License-Identifier: Apache-2.0
// NVIDIA's libraries as candidates beside our own kernels (cudnn.h, cublaslt.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/notice.h"
#include "kernels/core/tensor.h"

namespace lockstep {

// One line each: "cuDNN 9.19.0", or why it is not to be had. Loads them. Empty without CUDA in the build.
std::vector<std::string> gpu_library_descriptions();

// Whether this machine has a GPU and its driver. Plans are made without them too: library kernels decline
// then.
bool gpu_is_here();

// The libraries want their workspace at multiples of 256 bytes.
inline constexpr int64_t kGpuAlignment = 256;
inline int64_t gpu_aligned(int64_t bytes) {
  return (bytes + kGpuAlignment - 1) / kGpuAlignment * kGpuAlignment;
}
inline std::byte* gpu_aligned(void* p) {
  return reinterpret_cast<std::byte*>(gpu_aligned(static_cast<int64_t>(reinterpret_cast<uintptr_t>(p))));
}

// The algorithms that a library offers for one piece of work, best first. It may offer one and then fail to
// run it; the next takes its place then, for good.
template <class Algorithm>
class Algorithms {
 public:
  void add(Algorithm a) { all_.push_back(std::move(a)); }
  bool empty() const { return all_.empty(); }
  std::span<const Algorithm> all() const { return all_; }

  // `attempt` runs an algorithm and answers "", or why that failed. Returns "" once one has run, else why each
  // failed.
  template <class Attempt>
  std::string run(const Attempt& attempt) {
    std::string reasons;
    for (size_t i = now_; i < all_.size(); ++i) {
      const std::string problem = attempt(all_[i]);
      if (problem.empty()) {
        if (i != now_) notice_once(reasons + "; another algorithm takes its place");
        now_ = i;
        return {};
      }
      reasons += (reasons.empty() ? "" : "; ") + problem;
    }
    return reasons;
  }

 private:
  std::vector<Algorithm> all_;
  size_t now_ = 0;  // the first that has not failed
};

// A tensor with another number of samples.
inline TensorSpec with_samples(TensorSpec s, int64_t samples) {
  s.shape.set(0, samples);
  return s;
}

}  // namespace lockstep
