// SPDX-License-Identifier: Apache-2.0
// What plans run on: memory of the device, work in the order of one stream, and copies between it and the
// host.
//
// On the CPU, and on the SIMT executor, which runs GPU kernels there, the host's own memory is the device's,
// work is done when the call returns, and copies within one address do nothing. A GPU works later: what host
// memory takes part in a copy must stay as it is until synchronize(). Errors: those of the device as Error,
// with the code io (74) where memory is out and internal (70) otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/kernel.h"

namespace lockstep {

class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  virtual Device device() const = 0;
  virtual std::string name() const = 0;  // of the processor: part of what a kernel's timing depends on
  virtual bool shares_host_memory() const = 0;

  // Zeroed, aligned to 64 bytes at least.
  virtual void* allocate(int64_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  // Host memory that copies at full speed.
  virtual void* allocate_host(int64_t bytes) = 0;
  virtual void release_host(void* memory) noexcept = 0;

  virtual void copy_to_device(void* to, const void* from, int64_t bytes) = 0;
  virtual void copy_to_host(void* to, const void* from, int64_t bytes) = 0;
  virtual void copy_on_device(void* to, const void* from, int64_t bytes) = 0;
  virtual void synchronize() = 0;
  virtual void* stream() const = 0;  // KernelArgs::stream

  // Host data on its way to one place on the device, beside the device's work. Two may be under way.
  class Upload {
   public:
    virtual ~Upload() = default;
    // Host memory to fill; waits until what was sent from there, two sends ago, has left it.
    virtual void* next() = 0;
    // Its copy waits for no work but what reads the data before; the work that follows has it in place.
    virtual void send() = 0;
  };
  virtual std::unique_ptr<Upload> make_upload(void* to, int64_t bytes) = 0;

  // Data of the device on its way to the host, in the order of the work. Two may be under way.
  struct Piece {
    const void* from = nullptr;
    int64_t bytes = 0;
  };
  class Download {
   public:
    virtual ~Download() = default;
    virtual void send() = 0;
    // Waits for the oldest that was sent and not waited for: the pieces, each at a multiple of 64 bytes.
    // Valid until the next send but one.
    virtual const std::byte* wait() = 0;
  };
  virtual std::unique_ptr<Download> make_download(std::vector<Piece> pieces) = 0;

  // Seconds that the device takes for the work that `start` puts in its order, by its own clock where it has
  // one. Returns when it is done.
  virtual double time(const std::function<void()>& start);
  // After a call that failed, and that can be done without: drops what it left behind, an error or a recording.
  // Throws where the device itself is lost.
  virtual void recover() {}

  // Names the work between them on a profiler's timeline; they nest.
  virtual void begin_range(const char* /*name*/) {}
  virtual void end_range() {}

  // Between them work is recorded, not done. replay() does it, any number of times, in the stream's order.
  class Recording {
   public:
    virtual ~Recording() = default;
    virtual void replay() = 0;
  };
  virtual bool can_record() const = 0;
  virtual void begin_recording() = 0;
  virtual std::unique_ptr<Recording> end_recording() = 0;
};

// Where piece after piece lies, each at a multiple of 64 bytes.
constexpr int64_t next_piece(int64_t end) { return (end + 63) / 64 * 64; }

// Memory of a device, given back when it goes.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(DeviceRuntime& device, int64_t bytes)
      : DeviceMemory(bytes, device.allocate(bytes), [&device](void* p) { device.release(p); }) {}
  DeviceMemory(int64_t bytes, void* memory, std::function<void(void*)> release)
      : bytes_(bytes), memory_(memory, std::move(release)) {}
  void* data() const { return memory_.get(); }
  template <class T>
  T* as() const {
    return static_cast<T*>(memory_.get());
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
  std::unique_ptr<void, std::function<void(void*)>> memory_;
};

// Whether this build can use GPUs, and how many it sees: 0 also where there is no driver.
bool has_cuda();
int gpu_count();
// Of the first of them, in bytes; 0 where there is none.
int64_t gpu_memory();

// Device::cpu and Device::simt.
std::unique_ptr<DeviceRuntime> make_host_runtime(Device device);
// The GPU that belongs to this rank of its host: of those that it sees, in turn. Ranks may share one (over
// MPI; NCCL looks at that itself). Errors: none in this build or on this machine, config (78).
std::unique_ptr<DeviceRuntime> make_cuda_runtime(int local_rank);

}  // namespace lockstep
