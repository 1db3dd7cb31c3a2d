// SPDX-License-Identifier: Apache-2.0
// Which sample stands at which position of an epoch: a pure function of (seed, epoch, position), so that
// any number of ranks, and any resumed run, sees the same samples in the same order.
#pragma once

#include <cstdint>
#include <vector>

namespace lockstep {

class SampleOrder {
 public:
  SampleOrder(int64_t count, uint64_t seed, bool shuffle);
  int64_t count() const { return count_; }
  // A permutation of [0, count) for each epoch. position in [0, count).
  int64_t sample(int64_t epoch, int64_t position) const;

 private:
  int64_t count_;
  uint64_t seed_;
  bool shuffle_;
};

// How a global batch [0, n) is cut: part i of `parts`, contiguous, sizes differing by at most one, larger
// ones first (128 over 3: 43, 43, 42). Used for micro-batches and, within each, for ranks.
struct Slice {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
Slice slice_of(int64_t n, int64_t parts, int64_t i);

// `validation_fraction`: [0, count) cut in two at random, a pure function of its arguments. Both are
// ascending and disjoint and cover everything; the validation side has round(count * fraction) of them, where
// fraction > 0 at least one, and leaves at least one for training. fraction in [0, 1); Error config (78)
// where count is too small to give both a sample.
std::vector<int64_t> validation_indices(int64_t count, double fraction, uint64_t seed);
std::vector<int64_t> training_indices(int64_t count, double fraction, uint64_t seed);

}  // namespace lockstep
