// SPDX-License-Identifier: Apache-2.0
// Judges every memory access of kernels compiled as simt_watched. Link lockstep_kernels_watched to have it.
//
// The compiler reports accesses through the thread sanitizer's call-outs (__tsan_read4(address), ...), which
// this library defines itself; the executor reports barriers. What it finds is kept until it is taken:
//
//   gpu_watch::Allocation x(data, bytes, "x");       // memory that kernels may touch
//   ... run a simt_watched kernel ...
//   for (const gpu_watch::Finding& f : gpu_watch::take_findings()) ADD_FAILURE() << f.text();
//
// It also counts what the accesses cost a GPU (counters.h), while a Counting lives.
//
// Blocks run one after the other. One finding a problem and source line, with how often it was seen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/gpu/simt/executor.h"
#include "kernels/gpu/watch/counters.h"

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

// All launches of one kernel together.
struct KernelCount {
  struct Place {
    std::string place;  // as a finding's
    Space space;
    bool write;
    RequestCount count;
  };
  std::string kernel;  // its name with template arguments
  int64_t launches = 0, blocks = 0;
  unsigned threads = 0;                       // of a block
  size_t dynamic_shared = 0;                  // the most of a launch
  int64_t bytes_read = 0, bytes_written = 0;  // of global memory, each byte once a launch
  std::vector<Place> places;
  RequestCount total(Space) const;
};

// Watched launches are counted for as long as it lives. One at a time.
class Counting {
 public:
  Counting();
  ~Counting();
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;
  std::vector<KernelCount> take();  // in the order of the kernels' first launches
};

}  // namespace lockstep::gpu_watch

namespace lockstep {
class Registry;
// The watched twins of the registry's simt kernels.
const Registry& watched_registry();
}  // namespace lockstep
