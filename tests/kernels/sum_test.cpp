// SPDX-License-Identifier: Apache-2.0
#include "kernels/simd/sum.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace lockstep::sum_test {
namespace {

// As sum.h states it, of element i over buffers [first, first + count).
float tree(const std::vector<std::vector<float>>& buffers, size_t first, size_t count, size_t i) {
  if (count == 1) return buffers[first][i];
  size_t half = 1;
  while (2 * half < count) half *= 2;
  return tree(buffers, first, half, i) + tree(buffers, first + half, count - half, i);
}

TEST(Sum, IsTheBinaryTreeBitForBitAndStaysInItsRange) {
  constexpr size_t kLength = 1000;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 1e3f);
  for (size_t count : {1, 2, 3, 4, 5, 8, 13}) {
    std::vector<std::vector<float>> before(count, std::vector<float>(kLength));
    for (auto& b : before)
      for (float& x : b) x = normal(random);
    for (const auto& [begin, end] :
         std::vector<std::pair<size_t, size_t>>{{0, kLength}, {3, 3}, {5, 6}, {7, 801}}) {
      auto after = before;
      std::vector<float*> pointers;
      for (auto& b : after) pointers.push_back(b.data());
      sum_into_all(pointers.data(), static_cast<int>(count), static_cast<int64_t>(begin),
                   static_cast<int64_t>(end));
      for (size_t k = 0; k < count; ++k)
        for (size_t i = 0; i < kLength; ++i) {
          const float expected = i >= begin && i < end ? tree(before, 0, count, i) : before[k][i];
          ASSERT_EQ(std::memcmp(&after[k][i], &expected, sizeof expected), 0)
              << count << " buffers, " << k << ", " << i;
        }
    }
  }
}

}  // namespace
}  // namespace lockstep::sum_test
