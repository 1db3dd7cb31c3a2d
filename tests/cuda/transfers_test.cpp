// SPDX-License-Identifier: Apache-2.0
// Copies beside the compute stream, on stand-ins whose compute stream is held up: what must not wait for it
// doesn't, and what must come after it does.
#ifdef LOCKSTEP_STANDINS
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "runtime/device/device_runtime.h"
#include "tests/standins/stream.h"

namespace lockstep::testing::transfers_test {
namespace {

class CudaTransfers : public ::testing::Test {
 protected:
  // Work on the compute stream that goes on when let_go() is called.
  void hold() {
    standins::enqueue(device_->stream(), "held work", {}, [this] {
      while (held_) std::this_thread::yield();
    });
  }
  void let_go() { held_ = false; }
  void TearDown() override { let_go(); }

  std::atomic<bool> held_{true};
  std::unique_ptr<DeviceRuntime> device_ = make_cuda_runtime(0);
};

TEST_F(CudaTransfers, BatchesAreCopiedWhileTheDeviceComputes) {
  const DeviceMemory to(*device_, sizeof(int)), seen(*device_, 3 * sizeof(int));
  const auto upload = device_->make_upload(to.data(), sizeof(int));
  device_->synchronize();
  hold();
  // The third batch's memory is free once the first has left it, which it does while the device is held.
  for (int batch = 1; batch <= 3; ++batch) {
    std::memcpy(upload->next(), &batch, sizeof batch);
    if (batch == 3) {
      EXPECT_EQ(*standins::real(to.as<int>()), 0) << "what the work before reads is not touched";
      let_go();
    }
    upload->send();
    // A step that reads its batch.
    device_->copy_on_device(seen.as<int>() + batch - 1, to.data(), sizeof(int));
  }
  int batches[3] = {};
  device_->copy_to_host(batches, seen.data(), seen.bytes());
  device_->synchronize();
  for (int batch = 1; batch <= 3; ++batch) EXPECT_EQ(batches[batch - 1], batch);
}

TEST_F(CudaTransfers, ResultsAreThoseOfTheirStep) {
  const DeviceMemory value(*device_, sizeof(int)), other(*device_, 100);
  device_->synchronize();
  const auto download = device_->make_download({{other.data(), 100}, {value.data(), sizeof(int)}});
  const auto set = [&](int v) {
    standins::enqueue(device_->stream(), "set", {standins::writes(value.data(), sizeof(int))},
                      [&value, v] { *standins::real(value.as<int>()) = v; });
    download->send();
  };
  const auto got = [&] {
    int v = 0;
    std::memcpy(&v, download->wait() + 128, sizeof v);
    return v;
  };
  hold();
  set(1), set(2);  // the second is sent before the first is read
  let_go();
  EXPECT_EQ(got(), 1);
  set(3);
  EXPECT_EQ(got(), 2);
  EXPECT_EQ(got(), 3);
}

}  // namespace
}  // namespace lockstep::testing::transfers_test
#endif
