// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>

#include "runtime/device/device_runtime.h"
#include "runtime/device/memory.h"

namespace lockstep {
namespace {

class HostRuntime final : public DeviceRuntime {
 public:
  explicit HostRuntime(Device device) : device_(device) {}
  Device device() const override { return device_; }
  std::string name() const override { return "host"; }
  bool shares_host_memory() const override { return true; }

  void* allocate(int64_t bytes) override {
    AlignedBuffer buffer(bytes);
    void* memory = buffer.data();
    buffers_.emplace(memory, std::move(buffer));
    return memory;
  }
  void release(void* memory) noexcept override { buffers_.erase(memory); }
  void* allocate_host(int64_t bytes) override { return allocate(bytes); }
  void release_host(void* memory) noexcept override { release(memory); }

  void copy_to_device(void* to, const void* from, int64_t bytes) override { copy(to, from, bytes); }
  void copy_to_host(void* to, const void* from, int64_t bytes) override { copy(to, from, bytes); }
  void copy_on_device(void* to, const void* from, int64_t bytes) override { copy(to, from, bytes); }
  void synchronize() override {}
  void* stream() const override { return nullptr; }

  std::unique_ptr<Upload> make_upload(void*, int64_t) override {
    LOCKSTEP_ASSERT(false, "the host's memory is the device's");
  }
  std::unique_ptr<Download> make_download(std::vector<Piece>) override {
    LOCKSTEP_ASSERT(false, "the host's memory is the device's");
  }

  bool can_record() const override { return false; }
  void begin_recording() override { LOCKSTEP_ASSERT(false, "the host records nothing"); }
  std::unique_ptr<Recording> end_recording() override { return nullptr; }

 private:
  static void copy(void* to, const void* from, int64_t bytes) {
    if (to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  Device device_;
  std::map<void*, AlignedBuffer> buffers_;
};

}  // namespace

double DeviceRuntime::time(const std::function<void()>& start) {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  start();
  synchronize();
  return std::chrono::duration<double>(Clock::now() - began).count();
}

std::unique_ptr<DeviceRuntime> make_host_runtime(Device device) {
  return std::make_unique<HostRuntime>(device);
}

}  // namespace lockstep
