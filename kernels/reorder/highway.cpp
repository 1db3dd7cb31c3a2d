// SPDX-License-Identifier: Apache-2.0
// Every change of layout is a set of transpositions: lanes against the rest of the shape, channels against
// pixels.
#include <algorithm>
#include <cstring>

#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"
#include "kernels/reorder/kernels.h"
#include "kernels/simd/transpose.h"

namespace lockstep::reorder {
namespace {

constexpr int64_t kGrain = 16 << 10;  // floats that a thread should have at least
constexpr int64_t kPiece = 512;       // columns or rows that a thread takes at once: 32 KB beside 16 lanes

struct Sizes {
  int64_t n, c, hw, inner;  // inner = c * hw
};

int64_t blocks(const Sizes& s) { return (s.n + kLanes - 1) / kLanes; }
int64_t samples_of_block(const Sizes& s, int64_t b) { return std::min<int64_t>(kLanes, s.n - b * kLanes); }

// f(outer, begin, end): [0, n) x pieces of [0, length), together the whole tensor.
template <class F>
void for_pieces(const Sizes& s, int64_t n, int64_t length, int threads, F f) {
  if (n == 0) return;

  const int64_t pieces = (length + kPiece - 1) / kPiece;
  const int64_t grain = std::max<int64_t>(1, kGrain / (s.n * s.inner / (n * pieces) + 1));
  parallel_ranges(n * pieces, threads, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % pieces * kPiece;
      f(i / pieces, begin, std::min(begin + kPiece, length));
    }
  });
}

// Samples become lanes; `from` is plain.
void plain_to_lanes(const Sizes& s, const float* x, float* y, int threads) {
  for_pieces(s, blocks(s), s.inner, threads, [&](int64_t b, int64_t begin, int64_t end) {
    const int64_t block = b * kLanes * s.inner;
    transpose(x + block + begin, s.inner, samples_of_block(s, b), end - begin, y + block + begin * kLanes,
              kLanes);
  });
}

void lanes_to_plain(const Sizes& s, const float* x, float* y, int threads) {
  for_pieces(s, blocks(s), s.inner, threads, [&](int64_t b, int64_t begin, int64_t end) {
    const int64_t block = b * kLanes * s.inner;
    transpose(x + block + begin * kLanes, kLanes, end - begin, samples_of_block(s, b), y + block + begin,
              s.inner);
  });
}

void plain_to_nhwc(const Sizes& s, const float* x, float* y, int threads) {
  for_pieces(s, s.n, s.hw, threads, [&](int64_t n, int64_t begin, int64_t end) {
    transpose(x + n * s.inner + begin, s.hw, s.c, end - begin, y + n * s.inner + begin * s.c, s.c);
  });
}

void nhwc_to_plain(const Sizes& s, const float* x, float* y, int threads) {
  for_pieces(s, s.n, s.hw, threads, [&](int64_t n, int64_t begin, int64_t end) {
    transpose(x + n * s.inner + begin * s.c, s.c, end - begin, s.c, y + n * s.inner + begin, s.hw);
  });
}

// Between nhwc and lanes each pixel is a small matrix, samples by channels.
void nhwc_to_lanes(const Sizes& s, const float* x, float* y, int threads) {
  for_pieces(s, blocks(s), s.hw, threads, [&](int64_t b, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      transpose(x + b * kLanes * s.inner + i * s.c, s.inner, samples_of_block(s, b), s.c,
                y + (b * s.inner + i) * kLanes, s.hw * kLanes);
  });
}

void lanes_to_nhwc(const Sizes& s, const float* x, float* y, int threads) {
  for_pieces(s, blocks(s), s.hw, threads, [&](int64_t b, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      transpose(x + (b * s.inner + i) * kLanes, s.hw * kLanes, s.c, samples_of_block(s, b),
                y + b * kLanes * s.inner + i * s.c, s.inner);
  });
}

void copy(const View& x, const View& y, int threads) {
  parallel_ranges(x.spec.stored_elements(), threads, kGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(y.as<float>() + begin, x.as<float>() + begin,
                static_cast<size_t>(end - begin) * sizeof(float));
  });
}

void reorder_highway(const NoParams&, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &y = args.out[0];
  const Layout from = x.spec.layout, to = y.spec.layout;
  const bool image = x.shape().rank() == 4;
  const Sizes s{x.dim(0), image ? x.dim(1) : 1,
                image ? x.shape().elements_from(2) : x.shape().elements_from(1), x.shape().elements_from(1)};
  const auto go = [&](auto f) { f(s, x.as<const float>(), y.as<float>(), threads); };
  if (from == to)
    copy(x, y, threads);
  else if (from == Layout::plain)
    go(to == Layout::lanes ? plain_to_lanes : plain_to_nhwc);
  else if (from == Layout::nhwc)
    go(to == Layout::lanes ? nhwc_to_lanes : nhwc_to_plain);
  else
    go(to == Layout::plain ? lanes_to_plain : lanes_to_nhwc);
  zero_padding_lanes(y);
}

}  // namespace

void register_highway(Registry& r) {
  r.add({.op = "reorder",
         .name = "highway",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<NoParams>(reorder_highway)});
}

}  // namespace lockstep::reorder
