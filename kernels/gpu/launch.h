// SPDX-License-Identifier: Apache-2.0
// Starting kernels, and memory that they keep. Part of device_code.h.
#pragma once

#include <cstddef>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#ifdef __CUDACC__
#include "kernels/gpu/cuda_table.h"
#endif

namespace lockstep::LOCKSTEP_DEVICE {

// A bf16 pair as mma and ldmatrix have it: `low` at the lower address.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  return static_cast<uint32_t>(bf16(low).bits) | static_cast<uint32_t>(bf16(high).bits) << 16;
}

template <class T>
__device__ __forceinline__ Vector<T> load16(const T* p) {
  return load_vector<Vector<T>::kCount>(p);
}
template <class T>
__device__ __forceinline__ void store16(T* p, const Vector<T>& v) {
  store_vector(p, v);
}

// Blocks of `threads` that cover n; callers that loop may take fewer.
inline unsigned blocks(int64_t n, int64_t threads) {
  return static_cast<unsigned>((n + threads - 1) / threads);
}

// DeviceTable<T>: constant memory on the device that a kernel makes in make() and keeps: what is too large
// for a launch's arguments (4 KB).
#ifdef __CUDACC__

// Runs kernel(args...) on grid x block threads, in the stream's order. Throws where the GPU refuses.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void* stream, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel takes all its arguments");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "shared memory");
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(
      static_cast<P>(std::forward<A>(args))...);
  check(cudaGetLastError(), "launch");
}

#else

template <class T>
class DeviceTable {
 public:
  explicit DeviceTable(std::vector<T> values) : values_(std::move(values)) {
    if (auto* o = simt_executor::any_observer()) o->allocated(values_.data(), values_.size() * sizeof(T));
  }
  ~DeviceTable() {
    if (auto* o = simt_executor::any_observer()) o->freed(values_.data());
  }
  DeviceTable(const DeviceTable&) = delete;
  DeviceTable& operator=(const DeviceTable&) = delete;
  const T* data() const { return values_.data(); }
  int64_t size() const { return static_cast<int64_t>(values_.size()); }

 private:
  std::vector<T> values_;
};

namespace detail {
// The kernel with its arguments, called once by every thread: copies them to the thread's own stack.
template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> args;

  template <size_t... kIndex>
  LOCKSTEP_UNWATCHED void unpack(std::index_sequence<kIndex...>) const {
    kernel(std::get<kIndex>(args)...);
  }
  LOCKSTEP_UNWATCHED static void run(const void* self) {
    static_cast<const Call*>(self)->unpack(std::index_sequence_for<P...>());
  }
};
}  // namespace detail

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void* /*stream*/, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel takes all its arguments");
  const detail::Call<P...> call{kernel, {static_cast<P>(std::forward<A>(args))...}};
  simt_executor::run({.call = detail::Call<P...>::run,
                      .context = &call,
                      .kernel = reinterpret_cast<const void*>(kernel),
                      .grid = grid,
                      .block = block,
                      .shared_bytes = shared_bytes,
#ifdef LOCKSTEP_WATCHED
                      .watched = true});
#else
                      .watched = false});
#endif
}

#endif

}  // namespace lockstep::LOCKSTEP_DEVICE
