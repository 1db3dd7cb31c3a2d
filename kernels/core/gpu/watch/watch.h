// Judges every memory access of kernels compiled as simt_watched. Link lockstep_kernels_watched to have it.
//
// The compiler reports accesses through the thread sanitizer's call-outs (__tsan_read4(address), ...), which
// this library defines itself; the executor reports barriers. What it finds is kept until it is taken:
//
//   gpu_watch::Allocation x(data, bytes, "x");       // memory that kernels may touch
//   ... run a simt_watched kernel ...
//   for (const gpu_watch::Finding& f : gpu_watch::take_findings()) ADD_FAILURE() << f.text();
//
// Blocks run one after the other. One finding a problem and source line, with how often it was seen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/gpu/executor.h"

namespace lockstep::gpu_watch {

using simt_executor::Problem;

struct Finding {
  Problem problem;
  std::string kernel;  // its name with template arguments
  std::string place;   // "kernels/linear/linear.cu:93", innermost line outside the vocabulary
  std::string other;   // the place it conflicts with, where there is one
  std::string what;    // details of the first time: block, thread, address
  int64_t times = 1;
  std::string text() const;
};
std::vector<Finding> take_findings();

// Global memory of kernels for as long as it lives; anything else they touch is out of bounds. Leave space
// between allocations, or a neighbour hides an overrun.
class Allocation {
 public:
  Allocation(const void* data, int64_t bytes, std::string name);
  ~Allocation();
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

 private:
  const void* data_;
};

}  // namespace lockstep::gpu_watch

namespace lockstep {
class Registry;
// The watched twins of the registry's simt kernels.
const Registry& watched_registry();
}  // namespace lockstep
