// SPDX-License-Identifier: Apache-2.0
// A convolution's weights as the matrix that its product reads, and the gradient's matrix as weights:
// transpositions through shared memory, so that both sides are touched in whole lines.
#pragma once

#include "kernels/conv2d/gather.cuh"
#include "kernels/gpu/limits.h"

namespace lockstep::LOCKSTEP_DEVICE {

inline constexpr int kPackThreads = 128, kPackChannels = 32;  // of a block; the latter: in channels

// packed[out channel][tap][in channel, padded with 0] = w, for the taps of one Gather.
struct PackedWeights {
  Gather gather;
  int in_channels, padded_channels, out_channels;
  int in_weights, out_weights;  // distances of their weights
  int run = 0;                  // weights of an in channel that a block takes, which lie side by side

  __host__ __device__ int kernel() const { return gather.h.kernel * gather.w.kernel; }
};

// Row k of the kernel as a tap of this axis; -1 where it is none.
__device__ inline int tap_of(const GatherAxis& a, int k) {
  const int tap = (k - a.weight_first) / a.weight_step;
  return k >= a.weight_first && tap * a.weight_step == k - a.weight_first && tap < a.taps ? tap : -1;
}

// Grid: (runs, ceil(padded_channels / kPackChannels)). Shared: [kPackChannels][run, odd].
template <class T>
__global__ void __launch_bounds__(kPackThreads) pack_weights_kernel(PackedWeights p, const T* w, T* packed) {
  float* const tile = dynamic_shared<float>();
  const int kernel = p.kernel(), taps = p.gather.h.taps * p.gather.w.taps, pitch = p.run | 1;
  const int first = static_cast<int>(blockIdx.x) * p.run, count = min(p.run, p.out_channels * kernel - first);
  const int first_channel = static_cast<int>(blockIdx.y) * kPackChannels;
  for (int i = static_cast<int>(threadIdx.x); i < kPackChannels * p.run; i += kPackThreads) {
    const int c = i / p.run, j = i - c * p.run;
    if (j >= count || first_channel + c >= p.in_channels) continue;
    const int out = (first + j) / kernel;
    tile[c * pitch + j] = float(w[int64_t{out} * p.out_weights + int64_t{first_channel + c} * p.in_weights +
                                  (first + j - out * kernel)]);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kPackChannels * count; i += kPackThreads) {
    const int j = i / kPackChannels, c = i % kPackChannels, channel = first_channel + c;
    const int out = (first + j) / kernel, k = first + j - out * kernel, row = k / p.gather.w.kernel;
    const int r = tap_of(p.gather.h, row), s = tap_of(p.gather.w, k - row * p.gather.w.kernel);
    if (r < 0 || s < 0 || channel >= p.padded_channels) continue;
    packed[(int64_t{out} * taps + r * p.gather.w.taps + s) * p.padded_channels + channel] =
        channel < p.in_channels ? T(tile[c * pitch + j]) : T(0.0f);
  }
}

template <class T>
void pack_weights(PackedWeights p, const T* w, T* packed, void* stream) {
  if (p.gather.taps() == 0) return;
  // In channels side by side: all weights of one out channel; else, and of large kernels, so many that lines
  // are long.
  p.run = p.in_weights == p.kernel() && p.kernel() <= 256 ? p.kernel() : 64;
  launch(pack_weights_kernel<T>,
         dim3(blocks(int64_t{p.out_channels} * p.kernel(), p.run), blocks(p.padded_channels, kPackChannels)),
         kPackThreads, sizeof(float) * kPackChannels * static_cast<size_t>(p.run | 1), stream, p, w, packed);
}

// sums[tap][in channel, padded][out channel]
struct WeightGradSums {
  int taps, in_channels, padded_channels, out_channels;
  int channels = 0;  // in channels that a block takes
};
inline constexpr int kUnpackThreads = 256, kUnpackOutputs = 32;

// dw[out channel][in channel][tap]. Grid: (ceil(in_channels / channels), ceil(out_channels /
// kUnpackOutputs)). Shared: [kUnpackOutputs][channels * taps, odd].
static __global__ void __launch_bounds__(kUnpackThreads)
    unpack_weight_grad_kernel(WeightGradSums p, const float* sums, float* dw) {
  float* const tile = dynamic_shared<float>();
  const int of_output = p.channels * p.taps, pitch = of_output | 1;
  const int first = static_cast<int>(blockIdx.x) * p.channels, count = min(p.channels, p.in_channels - first);
  const int first_output = static_cast<int>(blockIdx.y) * kUnpackOutputs;
  for (int i = static_cast<int>(threadIdx.x); i < of_output * kUnpackOutputs; i += kUnpackThreads) {
    const int line = i / kUnpackOutputs, out = i % kUnpackOutputs, tap = line / p.channels,
              c = line - tap * p.channels;
    if (c >= count || first_output + out >= p.out_channels) continue;
    tile[out * pitch + c * p.taps + tap] =
        sums[(int64_t{tap} * p.padded_channels + first + c) * p.out_channels + first_output + out];
  }
  __syncthreads();
  // A warp a line: one that had two would meet itself in a bank.
  const int here = count * p.taps, lane = static_cast<int>(threadIdx.x) % 32;
  for (int out = static_cast<int>(threadIdx.x) / 32; out < kUnpackOutputs; out += kUnpackThreads / 32) {
    if (first_output + out >= p.out_channels) break;
    float* to = dw + (int64_t{first_output + out} * p.in_channels + first) * p.taps;
    for (int j = lane; j < here; j += 32) to[j] = tile[out * pitch + j];
    __syncwarp();  // lanes start each line together
  }
}

constexpr size_t unpack_shared_bytes(int taps, int channels) {
  return sizeof(float) * kUnpackOutputs * static_cast<size_t>(channels * taps | 1);
}
// In channels of a block, fewer where so many taps leave no room for them; 0: not even for one.
inline int unpack_channels(int taps) {
  int channels = taps < 4 ? 32 : 8;
  while (channels > 0 && unpack_shared_bytes(taps, channels) > most_shared_bytes()) channels /= 2;
  return channels;
}

inline void unpack_weight_grad(WeightGradSums p, const float* sums, float* dw, void* stream) {
  p.channels = unpack_channels(p.taps);
  launch(unpack_weight_grad_kernel,
         dim3(blocks(p.in_channels, p.channels), blocks(p.out_channels, kUnpackOutputs)), kUnpackThreads,
         unpack_shared_bytes(p.taps, p.channels), stream, p, sums, dw);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
