// SPDX-License-Identifier: Apache-2.0
// What a tensor is to a kernel: dtype, logical shape, physical layout, address.
//
// A shape is always the logical one in PyTorch's order: images [N, C, H, W], features [N, K],
// convolution weights [O, I/groups, KH, KW], vectors [K]. The layout says how the elements lie:
//   plain   row-major in logical order (NCHW for images)
//   nhwc    images only: row-major [N, H, W, C]
//   lanes   samples in vector lanes: [ceil(N/16)][all other dimensions row-major][16].
//           Lanes past N ("padding lanes") hold finite numbers in activations and exact zeros in
//           gradients of activations, so that sums over lanes need no mask. Kernels keep that rule.
// A tensor without a batch dimension (weights, statistics) is always plain.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/core/sizes.h"

namespace lockstep {

enum class DType : uint8_t { f32, bf16, u8, i32 };
inline constexpr int kLanes = 16;  // samples per block of the lanes layout, on every processor

constexpr int64_t size_of(DType t) {
  return t == DType::f32 || t == DType::i32 ? 4 : t == DType::bf16 ? 2 : 1;
}
const char* name(DType);

enum class Layout : uint8_t { plain, nhwc, lanes };
const char* name(Layout);

class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    LOCKSTEP_ASSERT(dims.size() <= kMaxRank);
    for (int64_t d : dims) dims_[static_cast<size_t>(rank_++)] = d;
  }
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  void set(int i, int64_t value) { dims_[static_cast<size_t>(i)] = value; }
  void push_back(int64_t d) {
    LOCKSTEP_ASSERT(rank_ < kMaxRank);
    dims_[static_cast<size_t>(rank_++)] = d;
  }
  int64_t elements() const { return elements_from(0); }
  // Product of the dimensions from `first` on; 1 where there are none. Error config (78) E_TOO_LARGE where 64
  // bits do not hold it.
  int64_t elements_from(int first) const {
    int64_t n = 1;
    for (int i = first; i < rank_; ++i)
      if (__builtin_mul_overflow(n, (*this)[i], &n)) [[unlikely]]
        wraps(first);
    return n;
  }
  bool operator==(const Shape& o) const {
    if (rank_ != o.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if ((*this)[i] != o[i]) return false;
    return true;
  }
  std::string text() const;  // "[64, 1, 28, 28]"

 private:
  [[noreturn]] void wraps(int first) const;
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

struct TensorSpec {
  DType dtype = DType::f32;
  Shape shape;
  Layout layout = Layout::plain;

  // Elements stored, the lanes layout's padding included.
  int64_t stored_elements() const {
    if (layout != Layout::lanes) return shape.elements();
    Shape padded = shape;
    padded.set(0, (shape[0] + kLanes - 1) / kLanes * kLanes);
    return padded.elements();
  }
  int64_t bytes() const { return checked_product("a tensor's bytes", {stored_elements(), size_of(dtype)}); }
  // Where element (n, inner) lies, inner being the row-major index over the dimensions after the
  // first. For references and tests: any layout, no speed.
  int64_t offset(int64_t n, int64_t inner) const {
    const int64_t per = shape.elements_from(1);
    switch (layout) {
      case Layout::plain:
        return n * per + inner;
      case Layout::nhwc: {
        const int64_t hw = shape.elements_from(2);
        return n * per + inner % hw * shape[1] + inner / hw;
      }
      case Layout::lanes:
        return (n / kLanes * per + inner) * kLanes + n % kLanes;
    }
    return 0;
  }
  // The same for an image's (n, c, h, w).
  int64_t offset(int64_t n, int64_t c, int64_t h, int64_t w) const {
    return offset(n, (c * shape[2] + h) * shape[3] + w);
  }
  bool operator==(const TensorSpec& o) const {
    return dtype == o.dtype && shape == o.shape && layout == o.layout;
  }
  std::string text() const;  // "f32[64, 1, 28, 28]:lanes"
};

// A spec and an address. Does not own. Data is 64-byte aligned where the runtime places it at the start of a
// value; slices of flat parameter arrays are too, but those of their copy in bf16 to 32 bytes.
struct View {
  TensorSpec spec;
  void* data = nullptr;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  const Shape& shape() const { return spec.shape; }
  int64_t dim(int i) const { return spec.shape[i]; }
};

}  // namespace lockstep
