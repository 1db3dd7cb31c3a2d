// SPDX-License-Identifier: Apache-2.0
// DeviceTable (launch.h) on a GPU. In plain C++, so that tests can have it on stand-ins.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdint>
#include <vector>

#include "kernels/core/error.h"

namespace lockstep::LOCKSTEP_DEVICE {

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw Error(Exit::internal, "E_CUDA", fmt::format("{}: {}", what, cudaGetErrorString(status)));
}

template <class T>
class DeviceTable {
 public:
  explicit DeviceTable(const std::vector<T>& values) : size_(static_cast<int64_t>(values.size())) {
    // Plans are made without a GPU too; such a kernel is never run.
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 || size_ == 0) return;
    check(cudaMalloc(reinterpret_cast<void**>(&data_), values.size() * sizeof(T)), "a kernel's table");
    // It returns when the values are read, not when they are there; and no stream of ours (cudaStreamNonBlocking)
    // waits for the one on which they travel.
    check(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
          "a kernel's table");
    check(cudaStreamSynchronize(cudaStreamLegacy), "a kernel's table");
  }
  ~DeviceTable() { cudaFree(data_); }
  DeviceTable(const DeviceTable&) = delete;
  DeviceTable& operator=(const DeviceTable&) = delete;
  const T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_;
};

}  // namespace lockstep::LOCKSTEP_DEVICE
