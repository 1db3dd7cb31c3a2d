// SPDX-License-Identifier: Apache-2.0
// NCCL's collectives with one rank, on a GPU and on stand-ins: what becomes of a bucket's bits on their way.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/bf16.h"
#include "runtime/comm/device_collectives.h"
#include "runtime/graph/parameter_table.h"

namespace lockstep::testing::collectives_test {
namespace {

constexpr int64_t kFirst = 1008, kLength = 3003;  // floats of the first bucket, and of both

std::vector<float> many_magnitudes() {
  std::vector<float> values(kLength);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::ldexp(std::sin(static_cast<float>(i + 1)), static_cast<int>(i % 40) - 20);
  return values;
}

TEST(CudaCollectives, GradientsAreRoundedAndMetricsAreNot) {
  if (gpu_count() == 0 || !has_nccl()) GTEST_SKIP() << "no GPU here, or no NCCL";
  const auto device = make_cuda_runtime(0);
  const auto self = make_self_communicator();
  const std::vector<float> before = many_magnitudes();
  for (const DType travels : {DType::f32, DType::bf16}) {
    const auto collectives = make_nccl_collectives(*device, *self, {.gradients = travels});
    const DeviceMemory gradients = collectives->allocate(kLength * 4);
    EXPECT_EQ(collectives->staging_bytes(kLength * 4), travels == DType::bf16 ? kLength * 2 : 0);
    const auto reduce = [&] {
      auto* const data = gradients.as<float>();
      collectives->start_gradient_allreduce(data, kFirst, kMetricsFloats, "first");
      collectives->start_gradient_allreduce(data + kFirst, kLength - kFirst, 0, "second");
      collectives->join();
    };
    std::unique_ptr<DeviceRuntime::Recording> recording;
    for (const bool recorded : {false, true}) {
      SCOPED_TRACE(fmt::format("{}{}", name(travels), recorded ? ", recorded" : ""));
      device->copy_to_device(gradients.data(), before.data(), gradients.bytes());
      if (recorded) {
        device->begin_recording();
        reduce();
        recording = device->end_recording();
        recording->replay();
      } else {
        reduce();
      }
      std::vector<float> after(kLength);
      device->copy_to_host(after.data(), gradients.data(), gradients.bytes());
      device->synchronize();
      for (size_t i = 0; i < after.size(); ++i) {
        const bool rounded = travels == DType::bf16 && i >= static_cast<size_t>(kMetricsFloats);
        ASSERT_EQ(after[i], rounded ? float(bf16(before[i])) : before[i]) << i;
      }
    }
  }
}

// Each ends as NCCL wants it to: what an end leaves undone, the next beginning waits for.
TEST(CudaCollectives, OneCommunicatorAfterAnother) {
  if (gpu_count() == 0 || !has_nccl()) GTEST_SKIP() << "no GPU here, or no NCCL";
  const auto device = make_cuda_runtime(0);
  const auto self = make_self_communicator();
  for (int i = 0; i < 3; ++i) {
    const auto collectives =
        make_nccl_collectives(*device, *self, {.deadline_seconds = 10, .gradients = DType::bf16});
    const DeviceMemory gradients = collectives->allocate(kLength * 4);
    collectives->start_gradient_allreduce(gradients.as<float>(), kLength, kMetricsFloats, "all");
    collectives->join();  // under way when the memory goes
  }
}

}  // namespace
}  // namespace lockstep::testing::collectives_test
