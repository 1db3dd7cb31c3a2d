// Philox on vectors: along the elements of one sample, or, in the lanes layout, over 16 samples at once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dropout/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/core/vector-inl.h"

#include <algorithm>

#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"
#include "kernels/core/philox.h"
#include "kernels/core/step_state.h"
#include "kernels/dropout/dropout.h"
#include "kernels/dropout/kernels.h"

#ifndef LOCKSTEP_DROPOUT_TASK
#define LOCKSTEP_DROPOUT_TASK
namespace lockstep::dropout {

// One run over a tensor of n samples, c channels (or features) and hw pixels (1 for features).
struct Task {
  int64_t n, c, hw;
  StepState state;
  uint32_t stream;
  float p, scale;
  int threads;
};

}  // namespace lockstep::dropout
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::dropout {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using lockstep::HWY_NAMESPACE::load_as;
using lockstep::HWY_NAMESPACE::store_as;

constexpr int64_t kBatch = 16;  // counters per call: one vector of AVX-512

#if HWY_TARGET == HWY_SCALAR

// out[4 * i + w] = word w of counter (index4 + i, sample), i < 16.
void words_along(const Task& t, int64_t sample, int64_t index4, uint32_t* out) {
  for (int64_t i = 0; i < kBatch; ++i) {
    const Philox4 r = random4(t.state.seed, t.stream, t.state.step, sample, index4 + i);
    std::copy(r.x, r.x + 4, out + 4 * i);
  }
}

// out[16 * w + i] = word w of counter (index4, sample + i), i < 16.
void words_across(const Task& t, int64_t sample, int64_t index4, uint32_t* out) {
  for (int64_t i = 0; i < kBatch; ++i) {
    const Philox4 r = random4(t.state.seed, t.stream, t.state.step, sample + i, index4);
    for (int64_t w = 0; w < 4; ++w) out[kBatch * w + i] = r.x[w];
  }
}

#else

using Words = hn::CappedTag<uint32_t, kBatch>;
using Word = hn::Vec<Words>;

// Counters in the even lanes; what the odd lanes hold does not matter, since a product reads the even ones
// only. It leaves its low half in an even lane, its high half in the odd one above.
struct Counters {
  Word x0, x1, x2, x3;
};

HWY_INLINE Word high_half(Words d, Word product) {
  const hn::Repartition<uint64_t, Words> wide;
  return hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, product)));
}

HWY_INLINE void philox_round(Words d, Counters& c, Word key0, Word key1) {
  const Word p0 = hn::BitCast(d, hn::MulEven(c.x0, hn::Set(d, 0xD2511F53u)));
  const Word p1 = hn::BitCast(d, hn::MulEven(c.x2, hn::Set(d, 0xCD9E8D57u)));
  c = {hn::Xor3(high_half(d, p1), c.x1, key0), p1, hn::Xor3(high_half(d, p0), c.x3, key1), p0};
}

HWY_INLINE Word merge(Words d, Word even, Word odd) {
  const hn::Repartition<uint64_t, Words> wide;
  return hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(hn::BitCast(wide, odd))), even);
}

// philox4x32_10 of Lanes(d) counters.
HWY_INLINE Counters philox(Words d, const Task& t, Word x0, Word x1) {
  const auto odd = [&](Word v) { return high_half(d, v); };
  const Word step = hn::Set(d, static_cast<uint32_t>(t.state.step)), stream = hn::Set(d, t.stream);
  Counters a{x0, x1, step, stream}, b{odd(x0), odd(x1), step, stream};
  auto key0 = static_cast<uint32_t>(t.state.seed), key1 = static_cast<uint32_t>(t.state.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const Word k0 = hn::Set(d, key0), k1 = hn::Set(d, key1);
    philox_round(d, a, k0, k1);
    philox_round(d, b, k0, k1);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {merge(d, a.x0, b.x0), merge(d, a.x1, b.x1), merge(d, a.x2, b.x2), merge(d, a.x3, b.x3)};
}

// out[4 * i + w] = word w of counter (index4 + i, sample), i < 16.
void words_along(const Task& t, int64_t sample, int64_t index4, uint32_t* out) {
  const Words d;
  const Word x1 = hn::Set(d, static_cast<uint32_t>(sample));
  for (size_t i = 0; i < kBatch; i += hn::Lanes(d)) {
    const Counters r =
        philox(d, t, hn::Iota(d, static_cast<uint32_t>(index4) + static_cast<uint32_t>(i)), x1);
    hn::StoreInterleaved4(r.x0, r.x1, r.x2, r.x3, d, out + 4 * i);
  }
}

// out[16 * w + i] = word w of counter (index4, sample + i), i < 16.
void words_across(const Task& t, int64_t sample, int64_t index4, uint32_t* out) {
  const Words d;
  const Word x0 = hn::Set(d, static_cast<uint32_t>(index4));
  for (size_t i = 0; i < kBatch; i += hn::Lanes(d)) {
    const Counters r =
        philox(d, t, x0, hn::Iota(d, static_cast<uint32_t>(sample) + static_cast<uint32_t>(i)));
    hn::StoreU(r.x0, d, out + i);
    hn::StoreU(r.x1, d, out + kBatch + i);
    hn::StoreU(r.x2, d, out + 2 * kBatch + i);
    hn::StoreU(r.x3, d, out + 3 * kBatch + i);
  }
}

#endif

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
  go(hn::CappedTag<float, kBatch>());
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

constexpr int64_t kWords = 4 * kBatch;

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
  for_pieces(t.n, inner, kWords, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kWords];
    words_along(t, t.state.first_sample + n, begin / 4, words);
    drop(t, from + n * inner + begin, words, end - begin, to + n * inner + begin);
  });
}

template <class T>
void plain_channels(const Task& t, const T* from, T* to) {
  for_pieces(t.n, t.c, kWords, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kWords];
    words_along(t, t.state.first_sample + n, begin / 4, words);
    for (int64_t c = begin; c < end; ++c)
      drop_run(t, from + (n * t.c + c) * t.hw, words[c - begin], t.hw, to + (n * t.c + c) * t.hw);
  });
}

// A channel's draws follow one another along its pixels: drawn for 64 pixels of 16 channels at a time.
template <class T>
void nhwc(const Task& t, const T* from, T* to) {
  constexpr int64_t kPixels = 64, kChannels = 16;
  for_pieces(t.n, t.hw, kPixels, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kChannels][2 * kWords];
    const uint32_t* drawn[kChannels];  // each channel's word for pixel `begin`
    const T* x = from + n * t.hw * t.c;
    T* y = to + n * t.hw * t.c;
    for (int64_t c0 = 0; c0 < t.c; c0 += kChannels) {
      const int64_t channels = std::min(kChannels, t.c - c0);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t e = (c0 + c) * t.hw + begin, lead = e % 4;
        words_along(t, t.state.first_sample + n, e / 4, words[c]);
        if (lead + end - begin > kWords)
          words_along(t, t.state.first_sample + n, e / 4 + kBatch, words[c] + kWords);
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
  for_pieces(t.n, t.c, kWords, t.threads, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kWords];
    words_along(t, t.state.first_sample + n, begin / 4, words);
    for (int64_t i = n * t.hw; i < (n + 1) * t.hw; ++i)
      drop(t, from + i * t.c + begin, words, end - begin, to + i * t.c + begin);
  });
}

// Four elements of 16 samples at a time.
template <class T>
void lanes(const Task& t, const T* from, T* to) {
  const int64_t inner = t.c * t.hw;
  for_pieces((t.n + kLanes - 1) / kLanes, inner, 4, t.threads, [&](int64_t b, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kWords];
    words_across(t, t.state.first_sample + b * kLanes, begin / 4, words);
    const int64_t at = (b * inner + begin) * kLanes;
    drop(t, from + at, words, (end - begin) * kLanes, to + at);
  });
}

template <class T>
void lanes_channels(const Task& t, const T* from, T* to) {
  for_pieces((t.n + kLanes - 1) / kLanes, t.c, 4, t.threads, [&](int64_t b, int64_t begin, int64_t end) {
    HWY_ALIGN uint32_t words[kWords];
    words_across(t, t.state.first_sample + b * kLanes, begin / 4, words);
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
  const Task t{.n = x.dim(0),
               .c = x.shape().rank() > 1 ? x.dim(1) : 1,
               .hw = x.shape().elements_from(2),
               .state = *args.in[1].as<const StepState>(),
               .stream = stream::kDropout + p.layer,
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
