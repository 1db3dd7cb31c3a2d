// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/device_code.h"
//
#include "kernels/gpu/activate.cuh"
#include "kernels/gpu/library_parts.h"
#include "kernels/gpu/partial_sums.cuh"
#include "kernels/gpu/reduce.h"
#include "kernels/gpu/vectors.h"

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

// kWidth neighbours a thread. They may be of several channels.
template <class T, int kWidth>
__global__ void finish(T* y, unsigned vectors, Channels c, const float* bias, Activation activation) {
  const unsigned v = blockIdx.x * kThreads + threadIdx.x;
  if (v >= vectors) return;
  float f[kWidth];
  load_floats(f, y + int64_t{v} * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    if (bias) f[k] += bias[c.of(v * kWidth + k)];
    f[k] = activate(activation, f[k]);
  }
  store_floats(y + int64_t{v} * kWidth, f);
}

// partials[slice][channel]: sums over numbers [slice * of_slice, ...) of the `count` of a channel, which lie
// in runs of `inner` numbers. A block for each.
template <class T>
__global__ void channel_sums(const T* x, unsigned count, Channels c, unsigned of_slice, float* partials) {
  const unsigned channel = blockIdx.x % c.channels, slice = blockIdx.x / c.channels;
  const unsigned first = slice * of_slice, last = min(count, first + of_slice);
  float sum = 0;
  for (unsigned i = first + threadIdx.x; i < last; i += kThreads)
    sum += float(x[(int64_t{i / c.inner} * c.channels + channel) * c.inner + i % c.inner]);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// The same where channels come last: 32 of them side by side, so that neighbours read neighbours.
template <class T>
__global__ void column_sums(const T* x, unsigned count, Channels c, unsigned of_slice, float* partials) {
  __shared__ float sums[kThreads / 32][32];
  const unsigned across = (c.channels + 31) / 32, lane = threadIdx.x % 32, row = threadIdx.x / 32;
  const unsigned channel = blockIdx.x % across * 32 + lane, slice = blockIdx.x / across;
  const unsigned first = slice * of_slice, last = min(count, first + of_slice);
  float sum = 0;
  if (channel < c.channels)
    for (unsigned i = first + row; i < last; i += kThreads / 32)
      sum += float(x[int64_t{i} * c.channels + channel]);
  sums[row][lane] = sum;
  __syncthreads();
  if (row != 0 || channel >= c.channels) return;
#pragma unroll
  for (int i = 1; i < kThreads / 32; ++i) sum += sums[i][lane];
  partials[slice * c.channels + channel] = sum;
}

struct StoreSum {
  float* to;
  __device__ void operator()(int64_t i, float sum) const { to[i] = sum; }
};

// How the numbers of a channel are cut into slices.
struct Slices {
  int64_t numbers, slices, of_slice;
};
Slices slices_of(const TensorSpec& s) {
  const Channels c = channels_of(s);
  const int64_t numbers = s.shape[0] * s.shape.elements_from(2);
  const int64_t blocks_a_slice = c.inner == 1 ? blocks(c.channels, 32) : c.channels;
  const int64_t slices = slices_for(blocks_a_slice, numbers, 4 * kThreads);
  return {numbers, slices, (numbers + slices - 1) / slices};
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

int64_t bias_grad_workspace_bytes(const TensorSpec& dy) { return slices_of(dy).slices * dy.shape[1] * 4; }

void bias_grad(const View& dy, float* db, void* workspace, void* stream) {
  const Channels c = channels_of(dy.spec);
  const Slices s = slices_of(dy.spec);
  auto* partials = static_cast<float*>(workspace);
  with_type(dy.spec.dtype, [&]<class T>(T) {
    const bool columns = c.inner == 1;
    launch(columns ? column_sums<T> : channel_sums<T>,
           static_cast<unsigned>(s.slices) * (columns ? blocks(c.channels, 32) : c.channels), kThreads, 0,
           stream, dy.as<const T>(), s.numbers, c, s.of_slice, partials);
  });
  add_partials(partials, s.slices, c.channels, StoreSum{db}, stream);
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
