// SPDX-License-Identifier: Apache-2.0
// One GPU: its memory, one stream of compute and one of copies beside it, recording into CUDA graphs.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "runtime/comm/cards.h"
#include "runtime/cuda/call.h"
#include "runtime/device/device_runtime.h"

namespace lockstep {

class CudaStream {
 public:
  explicit CudaStream(int priority = 0);
  ~CudaStream() { cudaStreamDestroy(stream_); }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  explicit CudaEvent(unsigned flags = cudaEventDisableTiming) {
    LOCKSTEP_CUDA(cudaEventCreateWithFlags(&event_, flags));
  }
  ~CudaEvent() { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  operator cudaEvent_t() const { return event_; }
  void record(cudaStream_t stream) { LOCKSTEP_CUDA(cudaEventRecord(event_, stream)); }
  // What follows on `stream` comes after the last record.
  void delay(cudaStream_t stream) const { LOCKSTEP_CUDA(cudaStreamWaitEvent(stream, event_, 0)); }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int index);
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
  void copy_on_device(void* to, const void* from, int64_t bytes) override;
  void synchronize() override;
  void* stream() const override { return compute_; }

  std::unique_ptr<Upload> make_upload(void* to, int64_t bytes) override;
  std::unique_ptr<Download> make_download(std::vector<Piece> pieces) override;

  double time(const std::function<void()>& start) override;
  void recover() override;

  void begin_range(const char* name) override;
  void end_range() override;

  bool can_record() const override { return true; }
  void begin_recording() override;
  std::unique_ptr<Recording> end_recording() override;

  cudaStream_t compute() const { return compute_; }
  cudaStream_t copies() const { return copies_; }
  int index() const { return index_; }
  const Card& card() const { return card_; }
  // Until the event's last record is reached.
  void wait(cudaEvent_t event);
  // Called every few milliseconds while the host waits, with how long it has waited: collectives look
  // after their peers there. It throws, or ends the process.
  using Watch = std::function<void(std::chrono::duration<double> waited)>;
  void set_watch(Watch watch) { watch_ = std::move(watch); }

 private:
  static int select(int index);  // before anything else is made on it

  int index_;
  std::string name_;
  Card card_;
  CudaStream compute_, copies_;
  CudaEvent done_;
  Watch watch_;
  bool recording_ = false;
};

// Pinned host memory.
class HostMemory {
 public:
  HostMemory(CudaRuntime& device, int64_t bytes)
      : memory_(device.allocate_host(bytes), [&device](void* p) { device.release_host(p); }) {}
  std::byte* data() const { return static_cast<std::byte*>(memory_.get()); }

 private:
  std::unique_ptr<void, std::function<void(void*)>> memory_;
};

}  // namespace lockstep
