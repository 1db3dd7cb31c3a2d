// SPDX-License-Identifier: Apache-2.0
#include "kernels/simd/gather_product.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/core/cpu_target.h"

namespace lockstep::gather_product_test {
namespace {

constexpr int64_t kChannels = 300, kOutputs = 7;  // channels: more than go through at once

std::vector<float> normals(int64_t count) {
  static std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(random);
  return values;
}

// A last block that is not full: the lanes that are wanted have the bits of a full one, the others these or zero.
void check_last_lanes(int64_t blocks) {
  const auto x = normals(blocks * kChannels * kLanes), w = normals(kOutputs * kChannels),
             bias = normals(kOutputs);
  const int64_t origin[] = {0};
  const GatherTap tap[] = {{}};
  const auto product = [&](int64_t last_lanes) {
    std::vector<float> y(static_cast<size_t>(blocks * kOutputs * kLanes), -7.0f);
    GatherProblem g;
    g.x = x.data(), g.w = w.data(), g.bias = bias.data(), g.y = y.data();
    g.blocks = blocks, g.x_block = kChannels * kLanes, g.y_block = kOutputs * kLanes;
    g.last_lanes = last_lanes;
    g.x_at = g.y_at = origin;
    g.taps = tap;
    g.channels = kChannels, g.x_channel = kLanes, g.w_channel = 1;
    g.outputs = kOutputs, g.w_output = kChannels, g.y_output = kLanes;
    gather_product(g, 2);
    return y;
  };
  const std::vector<float> whole = product(kLanes);
  for (int64_t wanted = 1; wanted < kLanes; ++wanted) {
    const std::vector<float> part = product(wanted);
    for (size_t i = 0; i < whole.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const bool must = at / (kOutputs * kLanes) < blocks - 1 || at % kLanes < wanted;
      ASSERT_TRUE(part[i] == whole[i] || (!must && part[i] == 0))
          << blocks << " blocks, " << wanted << " lanes, at " << i;
    }
  }
}

TEST(GatherProduct, ComputesTheLanesOfTheLastBlockThatAreWanted) {
  const int64_t best = cpu_target();
  for (const int64_t target : supported_targets()) {
    SCOPED_TRACE(cpu_target_name(target));
    set_cpu_target(target);
    check_last_lanes(1);
    check_last_lanes(8);  // more than a tile takes
  }
  set_cpu_target(best);
}

}  // namespace
}  // namespace lockstep::gather_product_test
