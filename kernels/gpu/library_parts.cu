// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/device_code.h"
//
#include "kernels/gpu/activate.cuh"
#include "kernels/gpu/channel_sums.h"
#include "kernels/gpu/library_parts.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

// Number i is of channel i / inner % channels: inner is 1 where channels come last.
struct Channels {
  unsigned channels, inner;
  __device__ __forceinline__ unsigned of(unsigned i) const { return i / inner % channels; }
};
Channels channels_of(const TensorSpec& s) {
  const int64_t channels = s.shape[1], pixels = s.shape.elements_from(2);
  return {static_cast<unsigned>(channels), static_cast<unsigned>(s.layout == Layout::nhwc ? 1 : pixels)};
}

template <class F>
void with_type(DType t, F f) {
  if (t == DType::bf16)
    f(bf16());
  else
    f(float());
}

// Of kWidth numbers from i on. They may be of several channels.
template <int kWidth>
__device__ __forceinline__ void load_bias(float (&b)[kWidth], const float* bias, Channels c, unsigned i) {
  if (c.inner == 1 && c.channels % kWidth == 0) {
    load_row(b, bias + i % c.channels);
    return;
  }
  const bool one = c.inner % kWidth == 0;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) b[k] = one && k > 0 ? b[0] : bias[c.of(i + k)];
}

// kWidth neighbours a thread.
template <class T, int kWidth>
__global__ void finish(T* y, unsigned vectors, Channels c, const float* bias, Activation activation) {
  const unsigned v = blockIdx.x * kThreads + threadIdx.x;
  if (v >= vectors) return;
  float f[kWidth], b[kWidth] = {};
  load_floats(f, y + int64_t{v} * kWidth);
  if (bias) load_bias(b, bias, c, v * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) f[k] = activate(activation, f[k] + b[k]);
  store_floats(y + int64_t{v} * kWidth, f);
}

// partials[slice][channel]: sums over vectors [slice * of_slice, ...) of a channel's runs. A block for each.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    channel_sums(const T* x, Runs g, unsigned of_slice, float* partials) {
  const unsigned channel = blockIdx.x % g.sets, slice = blockIdx.x / g.sets;
  const unsigned first = slice * of_slice, last = min(g.numbers() / kWidth, first + of_slice);
  float sum[kWidth] = {};
  add_up<kThreads>(sum, first + threadIdx.x, last, [&](unsigned v) { return x + g.at<kWidth>(channel, v); });
#pragma unroll
  for (int k = 1; k < kWidth; ++k) sum[0] += sum[k];
  const float total = block_sum<kThreads>(sum[0]);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// A plain image's sums over pixels. The numbers of a channel are cut into slices, of whole vectors.
class PlainSums {
 public:
  explicit PlainSums(const TensorSpec& s) {
    const int64_t channels = s.shape[1], pixels = s.shape.elements_from(2);
    runs_ = {channels * pixels, unsigned(s.shape[0]), unsigned(pixels), unsigned(channels)};
    slices_ = slices_for(channels, runs_.numbers(), kThreads * kLoadsAtOnce);
  }
  int64_t workspace_floats() const { return slices_ * runs_.sets; }
  template <class T>
  void run(const T* x, float* partials, float* to, void* stream) const {
    with_width<T>(runs_.length % kVector<T> == 0, [&](auto width) {
      launch(channel_sums<T, width>, static_cast<unsigned>(workspace_floats()), kThreads, 0, stream, x, runs_,
             blocks(runs_.numbers() / width, slices_), partials);
    });
    add_partials(partials, slices_, runs_.sets, StoreFloat{to}, stream);
  }

 private:
  Runs runs_;
  int64_t slices_;
};

// f(ColumnSums or PlainSums)
template <class F>
auto with_sums(const TensorSpec& s, F f) {
  const bool columns = s.layout == Layout::nhwc || s.shape.elements_from(2) == 1;
  return columns ? f(ColumnSums(s.shape[0] * s.shape.elements_from(2), s.shape[1])) : f(PlainSums(s));
}

template <class T, bool kNhwc>
__global__ void unpack(const T* from, float* to, bool add, unsigned count, unsigned inputs, unsigned taps) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const unsigned input = i % inputs, line = i / inputs;  // where nhwc: line = output * taps + tap
  float& at = to[kNhwc ? (line / taps * inputs + input) * taps + line % taps : i];
  at = add ? at + float(from[i]) : float(from[i]);
}

__global__ void zero(float* x, unsigned count) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) x[i] = 0;
}

}  // namespace

void add_bias_and_activate(const View& y, const float* bias, Activation activation, void* stream) {
  const int64_t of_sample = y.spec.shape.elements_from(1);
  with_type(y.spec.dtype, [&]<class T>(T) {
    in_parts(y.dim(0), of_sample, [&](int64_t first, int64_t samples) {
      T* from = y.as<T>() + first * of_sample;
      const int64_t count = samples * of_sample;
      const bool wide = count % kVector<T> == 0 && first * of_sample % kVector<T> == 0;
      const int64_t vectors = wide ? count / kVector<T> : count;
      launch(wide ? finish<T, kVector<T>> : finish<T, 1>, blocks(vectors, kThreads), kThreads, 0, stream,
             from, vectors, channels_of(y.spec), bias, activation);
    });
  });
}

int64_t bias_grad_workspace_bytes(const TensorSpec& dy) {
  return with_sums(dy, [](const auto& sums) { return sums.workspace_floats() * 4; });
}

void bias_grad(const View& dy, float* db, void* workspace, void* stream) {
  with_sums(dy.spec, [&](const auto& sums) {
    with_type(dy.spec.dtype,
              [&]<class T>(T) { sums.run(dy.as<const T>(), static_cast<float*>(workspace), db, stream); });
  });
}

void unpack_weight_grad(const View& from, float* to, bool add, void* stream) {
  const int64_t count = from.shape().elements();
  with_type(from.spec.dtype, [&]<class T>(T) {
    launch(from.spec.layout == Layout::nhwc ? unpack<T, true> : unpack<T, false>, blocks(count, kThreads),
           kThreads, 0, stream, from.as<const T>(), to, add, count, from.dim(1),
           from.shape().elements_from(2));
  });
}

void set_to_zero(const View& f32, void* stream) {
  const int64_t count = f32.shape().elements();
  launch(zero, blocks(count, kThreads), kThreads, 0, stream, f32.as<float>(), count);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
