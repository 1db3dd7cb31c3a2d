// Which sample stands at which position of an epoch: a pure function of (seed, epoch, position), so that
// any number of ranks, and any resumed run, sees the same samples in the same order.
#pragma once

#include <cstdint>

namespace lockstep {

class Sampler {
 public:
  Sampler(int64_t count, uint64_t seed, bool shuffle);
  int64_t count() const { return count_; }
  // A permutation of [0, count) for each epoch. position in [0, count).
  int64_t sample(int64_t epoch, int64_t position) const;

 private:
  int64_t count_;
  uint64_t seed_;
  bool shuffle_;
};

// How a global batch [0, n) is cut: part i of `parts`, contiguous, sizes differing by at most one, larger ones
// first (128 over 3: 43, 43, 42). Used for micro-batches and, within each, for ranks.
struct Slice {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
Slice slice_of(int64_t n, int64_t parts, int64_t i);

}  // namespace lockstep
