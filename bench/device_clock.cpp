// SPDX-License-Identifier: Apache-2.0
#include "bench/device_clock.h"

#include <chrono>

#ifdef LOCKSTEP_HAS_CUDA
#include <cuda_runtime_api.h>
#endif

namespace lockstep {
namespace {

#ifdef LOCKSTEP_HAS_CUDA
class TimedEvent {
 public:
  TimedEvent() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~TimedEvent() { cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;
  void record(void* stream) {
    check(cudaEventRecord(event_, static_cast<cudaStream_t>(stream)), "cudaEventRecord");
  }
  double seconds_since(const TimedEvent& earlier) const {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, earlier.event_, event_), "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }

 private:
  static void check(cudaError_t status, const char* call) {
    if (status != cudaSuccess)
      throw Error(Exit::internal, "E_CUDA", fmt::format("{}: {}", call, cudaGetErrorString(status)));
  }
  cudaEvent_t event_ = nullptr;
};
#endif

}  // namespace

double seconds_on(DeviceRuntime& device, const std::function<void()>& before,
                  const std::function<void()>& work) {
  device.synchronize();
#ifdef LOCKSTEP_HAS_CUDA
  if (device.device() == Device::cuda) {
    TimedEvent begin, end;
    before();
    begin.record(device.stream());
    work();
    end.record(device.stream());
    device.synchronize();
    return end.seconds_since(begin);
  }
#endif
  using Clock = std::chrono::steady_clock;
  before();
  device.synchronize();
  const auto begin = Clock::now();
  work();
  device.synchronize();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace lockstep
