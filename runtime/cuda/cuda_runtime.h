// One GPU: its memory, one stream of compute, recording into CUDA graphs.
#pragma once

#include <chrono>
#include <functional>

#include "runtime/cuda/call.h"
#include "runtime/device/device_runtime.h"

namespace lockstep {

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int index);
  ~CudaRuntime() override;
  CudaRuntime(const CudaRuntime&) = delete;
  CudaRuntime& operator=(const CudaRuntime&) = delete;

  Device device() const override { return Device::cuda; }
  std::string name() const override { return name_; }
  bool shares_host_memory() const override { return false; }

  void* allocate(int64_t bytes) override;
  void release(void* memory) noexcept override;
  void* allocate_host(int64_t bytes) override;
  void release_host(void* memory) noexcept override;
  void copy_to_device(void* to, const void* from, int64_t bytes) override;
  void copy_to_host(void* to, const void* from, int64_t bytes) override;
  void synchronize() override;
  void* stream() const override { return stream_; }

  bool can_record() const override { return true; }
  void begin_recording() override;
  std::unique_ptr<Recording> end_recording() override;

  cudaStream_t compute() const { return stream_; }
  int index() const { return index_; }
  // Called every few milliseconds while synchronize() waits, with how long it has waited: collectives look
  // after their peers there. It throws, or ends the process.
  using Watch = std::function<void(std::chrono::duration<double> waited)>;
  void set_watch(Watch watch) { watch_ = std::move(watch); }

 private:
  int index_;
  std::string name_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t done_ = nullptr;
  Watch watch_;
};

}  // namespace lockstep
