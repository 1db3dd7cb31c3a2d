// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/sample_order.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "kernels/random/philox.h"
#include "runtime/data/permutation.h"

namespace lockstep {
namespace {

// Where positions [begin, end) of the split's permutation point, ascending.
std::vector<int64_t> split_part(int64_t count, uint64_t seed, int64_t begin, int64_t end) {
  std::vector<int64_t> indices(static_cast<size_t>(end - begin));
  for (int64_t i = begin; i < end; ++i)
    indices[static_cast<size_t>(i - begin)] = permute(count, seed, stream::kSplit, 0, i);
  std::sort(indices.begin(), indices.end());
  return indices;
}

int64_t validation_count(int64_t count, double fraction) {
  LOCKSTEP_ASSERT(count >= 0 && fraction >= 0 && fraction < 1, "count {}, fraction {}", count, fraction);
  if (fraction == 0) return 0;
  if (count < 2)
    throw Error(Exit::config, "E_DATA_SPLIT",
                fmt::format("validation_fraction {} of {} samples leaves one side empty", fraction, count));
  return std::clamp<int64_t>(std::llround(static_cast<double>(count) * fraction), 1, count - 1);
}

}  // namespace

SampleOrder::SampleOrder(int64_t count, uint64_t seed, bool shuffle)
    : count_(count), seed_(seed), shuffle_(shuffle) {
  LOCKSTEP_ASSERT(count >= 0, "count {}", count);
}

int64_t SampleOrder::sample(int64_t epoch, int64_t position) const {
  LOCKSTEP_ASSERT(position >= 0 && position < count_, "position {} of {}", position, count_);
  return shuffle_ ? permute(count_, seed_, stream::kShuffle, epoch, position) : position;
}

Slice slice_of(int64_t n, int64_t parts, int64_t i) {
  LOCKSTEP_ASSERT(n >= 0 && parts >= 1 && i >= 0 && i < parts, "n {}, part {} of {}", n, i, parts);
  const int64_t small = n / parts, larger = n % parts;
  const int64_t begin = i * small + std::min(i, larger);
  return {begin, begin + small + (i < larger ? 1 : 0)};
}

std::vector<int64_t> validation_indices(int64_t count, double fraction, uint64_t seed) {
  return split_part(count, seed, 0, validation_count(count, fraction));
}

std::vector<int64_t> training_indices(int64_t count, double fraction, uint64_t seed) {
  return split_part(count, seed, validation_count(count, fraction), count);
}

}  // namespace lockstep
