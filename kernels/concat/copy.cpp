// SPDX-License-Identifier: Apache-2.0
// Stretch by stretch with memcpy, which is the fastest copy there is.
#include <algorithm>
#include <cstring>

#include "kernels/concat/concat.h"
#include "kernels/concat/kernels.h"
#include "kernels/concat/stretches.h"
#include "kernels/core/dtypes.h"
#include "kernels/core/parallel.h"

namespace lockstep::concat {
namespace {

constexpr int64_t kGrain = 16 << 10;  // numbers that a thread should have at least

// f(stretch) for all of a tensor's.
template <class F>
void for_stretches(const Stretches& s, int threads, F f) {
  parallel_ranges(s.count, threads, kGrain / std::max<int64_t>(s.length(), 1),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) f(i);
                  });
}

// Numbers of any type, zero being all its bits.
struct Numbers {
  std::byte* data;
  int64_t size;
  explicit Numbers(const View& v) : data(v.as<std::byte>()), size(size_of(v.spec.dtype)) {}
  std::byte* at(int64_t i) const { return data + i * size; }
  size_t bytes(int64_t count) const { return static_cast<size_t>(count * size); }
};

void copy_inputs(const NoParams&, const KernelArgs& args, int threads) {
  const Stretches all(args.out[0].spec);
  const Numbers y(args.out[0]);
  for_stretches(all, threads, [&](int64_t i) {
    int64_t at = i * all.length();
    for (const View& x : args.in) {
      const int64_t length = all.channel * x.dim(1);
      std::memcpy(y.at(at), Numbers(x).at(i * length), y.bytes(length));
      at += length;
    }
  });
}

void copy_slice(const SliceChannelsParams& p, const KernelArgs& args, int threads) {
  const Stretches x(args.in[0].spec), y(args.out[0].spec);
  const Numbers from(args.in[0]), to(args.out[0]);
  for_stretches(y, threads, [&](int64_t i) {
    std::memcpy(to.at(i * y.length()), from.at(i * x.length() + p.begin * x.channel), to.bytes(y.length()));
  });
}

void copy_slice_grad(const SliceChannelsParams& p, const KernelArgs& args, int threads) {
  const Stretches x(args.out[0].spec), y(args.in[0].spec);
  const Numbers dy(args.in[0]), dx(args.out[0]);
  for_stretches(x, threads, [&](int64_t i) {
    const int64_t begin = i * x.length(), first = begin + p.begin * x.channel, last = first + y.length();
    std::memset(dx.at(begin), 0, dx.bytes(first - begin));
    std::memcpy(dx.at(first), dy.at(i * y.length()), dx.bytes(y.length()));
    std::memset(dx.at(last), 0, dx.bytes(begin + x.length() - last));
  });
}

}  // namespace

void register_copy(Registry& r) {
  const auto add = [&](const char* op, auto make) {
    add_of_one_dtype(r, {.op = op,
                         .name = "copy",
                         .layout = LayoutClass::any,
                         .bit_exact = {.threads = true, .shard = true},
                         .make = make});
  };
  add("concat", stateless<NoParams>(copy_inputs));
  add("slice_channels", stateless<SliceChannelsParams>(copy_slice));
  add("slice_channels_grad", stateless<SliceChannelsParams>(copy_slice_grad));
}

}  // namespace lockstep::concat
