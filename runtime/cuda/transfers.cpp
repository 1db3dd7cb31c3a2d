// SPDX-License-Identifier: Apache-2.0
// Copies beside the work of the compute stream: batches ahead of their step, results behind it.
#include <array>

#include "runtime/cuda/gpu.h"

namespace lockstep {
namespace {

// Each slot has host memory, and on the device a place to land: the data before may still be in use where it
// is to go. From there it is a copy within the device, in the order of the work.
class CudaUpload final : public DeviceRuntime::Upload {
 public:
  CudaUpload(CudaRuntime& device, void* to, int64_t bytes)
      : device_(device), to_(to), bytes_(bytes), slots_{Slot(device, bytes), Slot(device, bytes)} {
    device_.synchronize();  // memory is zeroed on the compute stream
  }

  void* next() override {
    device_.wait(slots_[at_].landed);
    return slots_[at_].host.data();
  }

  void send() override {
    Slot& s = slots_[at_];
    s.moved.delay(device_.copies());
    LOCKSTEP_CUDA(cudaMemcpyAsync(s.landing.data(), s.host.data(), static_cast<size_t>(bytes_),
                                  cudaMemcpyHostToDevice, device_.copies()));
    s.landed.record(device_.copies());
    s.landed.delay(device_.compute());
    device_.copy_on_device(to_, s.landing.data(), bytes_);
    s.moved.record(device_.compute());
    at_ = 1 - at_;
  }

 private:
  struct Slot {
    Slot(CudaRuntime& device, int64_t bytes) : host(device, bytes), landing(device, bytes) {}
    HostMemory host;
    DeviceMemory landing;
    CudaEvent landed, moved;
  };

  CudaRuntime& device_;
  void* to_;
  int64_t bytes_;
  std::array<Slot, 2> slots_;
  size_t at_ = 0;
};

class CudaDownload final : public DeviceRuntime::Download {
 public:
  CudaDownload(CudaRuntime& device, std::vector<DeviceRuntime::Piece> pieces)
      : device_(device), pieces_(std::move(pieces)), slots_{Slot(device, size()), Slot(device, size())} {}

  void send() override {
    LOCKSTEP_ASSERT(sent_ - waited_ < 2, "results of two runs are under way");
    Slot& s = slots_[sent_++ % 2];
    int64_t at = 0;
    for (const auto& piece : pieces_) {
      device_.copy_to_host(s.host.data() + at, piece.from, piece.bytes);
      at += next_piece(piece.bytes);
    }
    s.done.record(device_.compute());
  }

  const std::byte* wait() override {
    LOCKSTEP_ASSERT(waited_ < sent_, "no results are under way");
    Slot& s = slots_[waited_++ % 2];
    device_.wait(s.done);
    return s.host.data();
  }

 private:
  struct Slot {
    Slot(CudaRuntime& device, int64_t bytes) : host(device, bytes) {}
    HostMemory host;
    CudaEvent done;
  };
  int64_t size() const {
    int64_t bytes = 0;
    for (const auto& piece : pieces_) bytes += next_piece(piece.bytes);
    return bytes;
  }

  CudaRuntime& device_;
  std::vector<DeviceRuntime::Piece> pieces_;
  std::array<Slot, 2> slots_;
  size_t sent_ = 0, waited_ = 0;
};

}  // namespace

std::unique_ptr<DeviceRuntime::Upload> CudaRuntime::make_upload(void* to, int64_t bytes) {
  return std::make_unique<CudaUpload>(*this, to, bytes);
}

std::unique_ptr<DeviceRuntime::Download> CudaRuntime::make_download(std::vector<Piece> pieces) {
  return std::make_unique<CudaDownload>(*this, std::move(pieces));
}

}  // namespace lockstep
