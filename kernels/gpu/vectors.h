// SPDX-License-Identifier: Apache-2.0
// Rows of numbers in memory, as floats in registers, and which requests kernels on them take.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

template <class T>
constexpr DType dtype_of = sizeof(T) == 2 ? DType::bf16 : DType::f32;
template <class T>
constexpr int kVector = 16 / sizeof(T);  // numbers in 16 bytes

// kWidth numbers from p on: one, or 16 bytes that are aligned.
template <int kWidth, class T>
__device__ __forceinline__ void load_floats(float (&f)[kWidth], const T* p) {
  if constexpr (kWidth == 1) {
    f[0] = float(*p);
  } else {
    static_assert(kWidth == kVector<T>);
    const Vector<T> v = load16(p);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) f[k] = float(v[k]);
  }
}
template <int kWidth, class T>
__device__ __forceinline__ void store_floats(T* p, const float (&f)[kWidth]) {
  if constexpr (kWidth == 1) {
    *p = T(f[0]);
  } else {
    static_assert(kWidth == kVector<T>);
    Vector<T> v;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) v[k] = T(f[k]);
    store16(p, v);
  }
}
// kWidth consecutive floats (coefficients of channels), 16 bytes at once.
template <int kWidth>
__device__ __forceinline__ void load_row(float (&f)[kWidth], const float* p) {
  if constexpr (kWidth == 1) {
    f[0] = *p;
  } else {
#pragma unroll
    for (int k = 0; k < kWidth; k += 4) {
      const Vector<float> v = load16(p + k);
#pragma unroll
      for (int i = 0; i < 4; ++i) f[k + i] = v[i];
    }
  }
}

// kWidth numbers as they lie in memory.
template <class T, int kWidth>
struct Held {
  std::conditional_t<kWidth == 1, T, Vector<T>> raw;
  __device__ __forceinline__ void load(const T* p) {
    if constexpr (kWidth == 1)
      raw = *p;
    else
      raw = load16(p);
  }
  __device__ __forceinline__ float operator[](int k) const {
    if constexpr (kWidth == 1)
      return float(raw);
    else
      return float(raw[k]);
  }
};

namespace detail {
template <int kBytes>
struct Bytes;
template <>
struct Bytes<1> {
  using type = uint8_t;
};
template <>
struct Bytes<2> {
  using type = uint16_t;
};
template <>
struct Bytes<4> {
  using type = uint32_t;
};
template <>
struct Bytes<8> {
  using type = uint64_t;
};
}  // namespace detail

// kBytes (1, 2, 4, 8) at once as an integer, the first lowest; p is aligned to them.
template <int kBytes>
using bytes_t = typename detail::Bytes<kBytes>::type;
template <int kBytes>
__device__ __forceinline__ bytes_t<kBytes> load_bytes(const void* p) {
  bytes_t<kBytes> w;
  __builtin_memcpy(&w, __builtin_assume_aligned(p, kBytes), kBytes);
  return w;
}
template <int kBytes>
__device__ __forceinline__ void store_bytes(void* p, bytes_t<kBytes> w) {
  __builtin_memcpy(__builtin_assume_aligned(p, kBytes), &w, kBytes);
}

// f(kWidth as a constant): 16 bytes where `wide`, else 1.
template <class T, class F>
void with_width(bool wide, F f) {
  if (wide)
    f(std::integral_constant<int, kVector<T>>());
  else
    f(std::integral_constant<int, 1>());
}

// Kernels count elements in 32 bits. Calls f(first, count) for parts of `units` (samples, planes) that have
// fewer than 2^31 elements each: one, save for huge tensors.
constexpr int64_t kMostElements = (int64_t{1} << 31) - 1;
template <class F>
void in_parts(int64_t units, int64_t elements_a_unit, F f) {
  const int64_t most = std::max<int64_t>(1, kMostElements / std::max<int64_t>(1, elements_a_unit));
  for (int64_t first = 0; first < units; first += most) f(first, std::min(most, units - first));
}

// No tensor in lanes, all images in one layout, and a sample small enough for in_parts.
inline bool one_gpu_layout(const KernelRequest& r) {
  const TensorSpec* image = nullptr;
  for (auto specs : {r.in, r.out})
    for (const TensorSpec& s : specs) {
      if (s.layout == Layout::lanes || s.shape.elements_from(1) > kMostElements) return false;
      if (s.shape.rank() != 4) continue;
      if (image && image->layout != s.layout) return false;
      image = &s;
    }
  return true;
}

// All tensors are of type T.
template <class T>
bool of_one_type(const KernelRequest& r) {
  for (auto specs : {r.in, r.out})
    for (const TensorSpec& s : specs)
      if (s.dtype != dtype_of<T>) return false;
  return true;
}

// The first `in` inputs and `out` outputs are of type T (activations), all others f32 (statistics,
// coefficients).
template <class T>
bool norm_types(const KernelRequest& r, size_t in, size_t out) {
  const auto fit = [](std::span<const TensorSpec> specs, size_t activations) {
    for (size_t i = 0; i < specs.size(); ++i)
      if (specs[i].dtype != (i < activations ? dtype_of<T> : DType::f32)) return false;
    return true;
  };
  return fit(r.in, in) && fit(r.out, out);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
