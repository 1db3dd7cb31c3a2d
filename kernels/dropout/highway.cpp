// SPDX-License-Identifier: Apache-2.0
// Philox on vectors: along the elements of one sample, or, in the lanes layout, over 16 samples at once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dropout/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/random/philox-inl.h"
#include "kernels/simd/vector-inl.h"

#include <algorithm>

#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"
#include "kernels/core/step_state.h"
#include "kernels/dropout/dropout.h"
#include "kernels/dropout/kernels.h"
#include "kernels/random/philox.h"

#ifndef LOCKSTEP_DROPOUT_TASK
#define LOCKSTEP_DROPOUT_TASK
namespace lockstep::dropout {

// One run over a tensor of n samples, c channels (or features) and hw pixels (1 for features).
struct Task {
  int64_t n, c, hw;
  DrawKey key;
  int64_t first_sample;
  float p, scale;
  int threads;
};

}  // namespace lockstep::dropout
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::dropout {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using namespace lockstep::HWY_NAMESPACE;

// uniform01(word) >= p
template <class D>
HWY_INLINE auto kept(D d, const Task& t, const uint32_t* words) {
  const hn::Rebind<int32_t, D> di;
  const auto bits = hn::ShiftRight<8>(hn::LoadU(hn::Rebind<uint32_t, D>(), words));
  return hn::Ge(hn::Mul(hn::ConvertTo(d, hn::BitCast(di, bits)), hn::Set(d, 0x1p-24f)), hn::Set(d, t.p));
}

// y[i] = x[i], dropped or scaled as words[i] says, i < n. No branch: it would be mispredicted half the time.
template <class T>
HWY_INLINE void drop(const Task& t, const T* x, const uint32_t* words, int64_t n, T* y) {
  int64_t i = 0;
  const auto go = [&](auto d) {
    const auto step = static_cast<int64_t>(hn::Lanes(d));
    for (; i + step <= n; i += step) {
      const auto scaled = hn::Mul(load_as(d, x + i), hn::Set(d, t.scale));
      store_as(d, hn::IfThenElseZero(kept(d, t, words + i), scaled), y + i);
    }
  };
  go(hn::CappedTag<float, kCounters>());
  go(hn::CappedTag<float, 4>());
  go(hn::CappedTag<float, 1>());
}

// The same word for all n.
template <class T>
HWY_INLINE void drop_run(const Task& t, const T* x, uint32_t word, int64_t n, T* y) {
  if (uniform01(word) < t.p) {
    std::fill(y, y + n, T(0.0f));
    return;
  }
  for (int64_t i = 0; i < n; ++i) y[i] = T(float(x[i]) * t.scale);
}

// f(outer, begin, end) for [0, n) x pieces of [0, length) of `piece` each.
template <class F>
void for_pieces(int64_t n, int64_t length, int64_t piece, int threads, F f) {
  const int64_t pieces = (length + piece - 1) / piece;
  const int64_t grain = std::max<int64_t>(1, 4096 / piece);
  parallel_ranges(n * pieces, threads, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % pieces * piece;
      f(i / pieces, begin, std::min(begin + piece, length));
    }
  });
}

template <class T>
void plain(const Task& t, const T* from, T* to) {
  const int64_t inner = t.c * t.hw;
  for_pieces(t.n, inner, kDraws, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kDraws];
    words_along(t.key, t.first_sample + n, begin / 4, words);
    drop(t, from + n * inner + begin, words, end - begin, to + n * inner + begin);
  });
}

template <class T>
void plain_channels(const Task& t, const T* from, T* to) {
  for_pieces(t.n, t.c, kDraws, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kDraws];
    words_along(t.key, t.first_sample + n, begin / 4, words);
    for (int64_t c = begin; c < end; ++c)
      drop_run(t, from + (n * t.c + c) * t.hw, words[c - begin], t.hw, to + (n * t.c + c) * t.hw);
  });
}

// A channel's draws follow one another along its pixels: drawn for 64 pixels of 16 channels at a time.
template <class T>
void nhwc(const Task& t, const T* from, T* to) {
  constexpr int64_t kPixels = 64, kChannels = 16;
  for_pieces(t.n, t.hw, kPixels, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kChannels][2 * kDraws];
    const uint32_t* drawn[kChannels];  // each channel's word for pixel `begin`
    const T* x = from + n * t.hw * t.c;
    T* y = to + n * t.hw * t.c;
    for (int64_t c0 = 0; c0 < t.c; c0 += kChannels) {
      const int64_t channels = std::min(kChannels, t.c - c0);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t e = (c0 + c) * t.hw + begin, lead = e % 4;
        words_along(t.key, t.first_sample + n, e / 4, words[c]);
        if (lead + end - begin > kDraws)
          words_along(t.key, t.first_sample + n, e / 4 + kCounters, words[c] + kDraws);
        drawn[c] = words[c] + lead;
      }
      for (int64_t i = begin; i < end; ++i) {
        uint32_t pixel[kChannels];
        for (int64_t c = 0; c < channels; ++c) pixel[c] = drawn[c][i - begin];
        drop(t, x + i * t.c + c0, pixel, channels, y + i * t.c + c0);
      }
    }
  });
}

template <class T>
void nhwc_channels(const Task& t, const T* from, T* to) {
  for_pieces(t.n, t.c, kDraws, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kDraws];
    words_along(t.key, t.first_sample + n, begin / 4, words);
    for (int64_t i = n * t.hw; i < (n + 1) * t.hw; ++i)
      drop(t, from + i * t.c + begin, words, end - begin, to + i * t.c + begin);
  });
}

// Four elements of 16 samples at a time.
template <class T>
void lanes(const Task& t, const T* from, T* to) {
  const int64_t inner = t.c * t.hw;
  for_pieces((t.n + kLanes - 1) / kLanes, inner, 4, t.threads, [&](int64_t b, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kDraws];
    words_across(t.key, t.first_sample + b * kLanes, begin / 4, words);
    const int64_t at = (b * inner + begin) * kLanes;
    drop(t, from + at, words, (end - begin) * kLanes, to + at);
  });
}

template <class T>
void lanes_channels(const Task& t, const T* from, T* to) {
  for_pieces((t.n + kLanes - 1) / kLanes, t.c, 4, t.threads, [&](int64_t b, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kDraws];
    words_across(t.key, t.first_sample + b * kLanes, begin / 4, words);
    for (int64_t c = begin; c < end; ++c)
      for (int64_t i = (b * t.c + c) * t.hw; i < (b * t.c + c + 1) * t.hw; ++i)
        drop(t, from + i * kLanes, words + (c - begin) * kLanes, kLanes, to + i * kLanes);
  });
}

template <class T>
void run_typed(const Task& t, const View& x, const View& y, bool channelwise) {
  const T* from = x.as<const T>();
  T* to = y.as<T>();
  switch (x.spec.layout) {
    case Layout::plain:
      return channelwise ? plain_channels(t, from, to) : plain(t, from, to);
    case Layout::nhwc:
      return channelwise ? nhwc_channels(t, from, to) : nhwc(t, from, to);
    case Layout::lanes:
      return channelwise ? lanes_channels(t, from, to) : lanes(t, from, to);
  }
}

void run(const Task& t, const View& x, const View& y, bool channelwise) {
  x.spec.dtype == DType::bf16 ? run_typed<bf16>(t, x, y, channelwise)
                              : run_typed<float>(t, x, y, channelwise);
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::dropout
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::dropout {
namespace {

HWY_EXPORT(run);

void run_highway(const DropoutParams& p, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &y = args.out[0];
  const StepState& state = *args.in[1].as<const StepState>();
  const Task t{.n = x.dim(0),
               .c = x.shape().rank() > 1 ? x.dim(1) : 1,
               .hw = x.shape().elements_from(2),
               .key = {state.seed, stream::kDropout + p.layer, state.step},
               .first_sample = state.first_sample,
               .p = p.p,
               .scale = p.p < 1 ? static_cast<float>(1 / (1 - double{p.p})) : 0,
               .threads = threads};
  HWY_DYNAMIC_DISPATCH(run)(t, x, y, p.channelwise);
  zero_padding_lanes(y);
}

}  // namespace

void register_highway(Registry& r) {
  for (DType dtype : {DType::f32, DType::bf16})
    r.add({.op = "dropout",
           .name = "highway",
           .layout = LayoutClass::any,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = true},
           .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return q.in[0].dtype == q.out[0].dtype ? stateless<DropoutParams>(run_highway)(q) : nullptr;
           }});
}

}  // namespace lockstep::dropout
#endif
