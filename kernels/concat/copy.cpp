// Stretch by stretch with memcpy, which is the fastest copy there is.
#include <algorithm>
#include <cstring>

#include "kernels/concat/concat.h"
#include "kernels/concat/kernels.h"
#include "kernels/concat/stretches.h"
#include "kernels/core/parallel.h"

namespace lockstep::concat {
namespace {

constexpr int64_t kGrain = 16 << 10;  // floats that a thread should have at least

// f(stretch) for all of a tensor's.
template <class F>
void for_stretches(const Stretches& s, int threads, F f) {
  parallel_ranges(s.count, threads, kGrain / std::max<int64_t>(s.length(), 1),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) f(i);
                  });
}

void copy(const float* from, float* to, int64_t count) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void concat(const NoParams&, const KernelArgs& args, int threads) {
  const Stretches all(args.out[0].spec);
  for_stretches(all, threads, [&](int64_t i) {
    float* to = args.out[0].as<float>() + i * all.length();
    for (const View& x : args.in) {
      const int64_t length = all.channel * x.dim(1);
      copy(x.as<float>() + i * length, to, length);
      to += length;
    }
  });
}

void slice(const SliceChannelsParams& p, const KernelArgs& args, int threads) {
  const Stretches x(args.in[0].spec), y(args.out[0].spec);
  for_stretches(y, threads, [&](int64_t i) {
    copy(args.in[0].as<float>() + i * x.length() + p.begin * x.channel,
         args.out[0].as<float>() + i * y.length(), y.length());
  });
}

void slice_grad(const SliceChannelsParams& p, const KernelArgs& args, int threads) {
  const Stretches x(args.out[0].spec), y(args.in[0].spec);
  for_stretches(x, threads, [&](int64_t i) {
    float* dx = args.out[0].as<float>() + i * x.length();
    float *first = dx + p.begin * x.channel, *last = first + y.length();
    std::fill(dx, first, 0.0f);
    copy(args.in[0].as<float>() + i * y.length(), first, y.length());
    std::fill(last, dx + x.length(), 0.0f);
  });
}

}  // namespace

void register_copy(Registry& r) {
  const auto add = [&](const char* op, auto make) {
    r.add({.op = op,
           .name = "copy",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = true},
           .make = make});
  };
  add("concat", stateless<NoParams>(concat));
  add("slice_channels", stateless<SliceChannelsParams>(slice));
  add("slice_channels_grad", stateless<SliceChannelsParams>(slice_grad));
}

}  // namespace lockstep::concat
