// SPDX-License-Identifier: Apache-2.0
// Channels copied on a GPU: a thread moves one number, or 16 bytes that lie side by side on both sides.
#include <algorithm>

#include "kernels/concat/concat.h"
#include "kernels/concat/stretches.h"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/divider.cuh"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

// `run` numbers at the start of stretches of `from` and `to`, which are so far apart.
struct Part {
  int64_t from_stride, to_stride;
  Divider run;  // in pieces
};

template <class T, int kWidth>
__global__ void copy_part(const T* from, T* to, Part p, int pieces) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= pieces) return;
  const int stretch = p.run.divide(i), at = p.run.rest(i, stretch) * kWidth;
  float f[kWidth];
  load_floats(f, from + stretch * p.from_stride + at);
  store_floats(to + stretch * p.to_stride + at, f);
}

// All of `to`, whose numbers [begin, begin + run) of each stretch have a source.
template <class T, int kWidth>
__global__ void copy_and_fill(const T* from, T* to, int begin, int run, Divider length, int pieces) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= pieces) return;
  const int stretch = length.divide(i), at = length.rest(i, stretch) * kWidth - begin;
  float f[kWidth] = {};
  if (at >= 0 && at < run) load_floats(f, from + int64_t{stretch} * run + at);
  store_floats(to + int64_t{i} * kWidth, f);
}

template <class T>
bool all_wide(std::initializer_list<int64_t> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](int64_t n) { return n % kVector<T> == 0; });
}

// `run` numbers of `count` stretches each, from number `from_begin` on to number `to_begin` on.
template <class T>
void copy_channels(const T* from, const Stretches& x, int64_t from_begin, T* to, const Stretches& y,
                   int64_t to_begin, int64_t run, void* stream) {
  if (run == 0) return;
  with_width<T>(all_wide<T>({x.length(), y.length(), from_begin, to_begin, run}), [&](auto width) {
    const Part part{x.length(), y.length(), Divider(run / width)};
    in_parts(x.count, run, [&](int64_t first, int64_t stretches) {
      const int64_t pieces = stretches * run / width;
      launch(copy_part<T, width>, blocks(pieces, kThreads), kThreads, 0, stream,
             from + first * x.length() + from_begin, to + first * y.length() + to_begin, part, pieces);
    });
  });
}

template <class T>
void run_concat(const NoParams&, const KernelArgs& args) {
  const Stretches y(args.out[0].spec);
  int64_t begin = 0;
  for (const View& v : args.in) {
    const Stretches x(v.spec);
    copy_channels(v.as<const T>(), x, 0, args.out[0].as<T>(), y, begin, x.length(), args.stream);
    begin += x.length();
  }
}

template <class T>
void run_slice(const SliceChannelsParams& p, const KernelArgs& args) {
  const Stretches x(args.in[0].spec), y(args.out[0].spec);
  copy_channels(args.in[0].as<const T>(), x, p.begin * x.channel, args.out[0].as<T>(), y, 0, y.length(),
                args.stream);
}

template <class T>
void run_slice_grad(const SliceChannelsParams& p, const KernelArgs& args) {
  const Stretches x(args.out[0].spec), y(args.in[0].spec);
  if (x.length() == 0) return;
  const int64_t begin = p.begin * x.channel;
  with_width<T>(all_wide<T>({x.length(), y.length(), begin}), [&](auto width) {
    in_parts(x.count, x.length(), [&](int64_t first, int64_t stretches) {
      const int64_t pieces = stretches * x.length() / width;
      launch(copy_and_fill<T, width>, blocks(pieces, kThreads), kThreads, 0, args.stream,
             args.in[0].as<const T>() + first * y.length(), args.out[0].as<T>() + first * x.length(), begin,
             y.length(), Divider(x.length() / width), pieces);
    });
  });
}

template <class T>
void add_copies(Registry& r, Device device) {
  const auto add = [&](const char* op, auto make) {
    r.add({.op = op,
           .name = "copy",
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = true},
           .make = [make](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return of_one_type<T>(q) && one_gpu_layout(q) ? make(q) : nullptr;
           }});
  };
  add("concat", stateless<NoParams>(run_concat<T>));
  add("slice_channels", stateless<SliceChannelsParams>(run_slice<T>));
  add("slice_channels_grad", stateless<SliceChannelsParams>(run_slice_grad<T>));
}

}  // namespace

void register_concat(Registry& r, Device device) {
  add_copies<float>(r, device);
  add_copies<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
