// SPDX-License-Identifier: Apache-2.0
// Attention on a GPU. A block keeps a tile of rows (queries; for dk and dv, keys) of one head in shared
// memory, walks over tiles of the others, and sums what belongs to its rows in registers: nothing is summed
// by two blocks, so results repeat. Each warp has 16 rows and, where a head is wide, a part of its columns;
// the warps of a row then compute its scores each.
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"
// After device_code.h
#include "kernels/attention/fragments.cuh"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr float kLog2E = 1.44269504f;

// How a block is cut, for shared memory below 163 KB (compute capability 8.0) and 255 registers without
// spills.
template <class T, int kWidth_, int kMostColumns>
struct Cut {
  static constexpr bool kF32 = sizeof(T) == 4;
  static constexpr int kWidth = kWidth_;
  static constexpr int kRows = kWidth <= 128 ? 64 : (kF32 ? 8192 : 16384) / kWidth;
  static constexpr int kOthers = kF32 ? (kWidth <= 128 ? 32 : 16) : (kWidth <= 64 ? 64 : 32);
  static constexpr int kColumns = kWidth < kMostColumns ? kWidth : kMostColumns;  // of a warp
  static constexpr int kRowGroups = kRows / 16;
  static constexpr int kThreads = kRowGroups * (kWidth / kColumns) * 32;
  static constexpr int kRowsSize = kRows * kPitch<T, kWidth>, kOthersSize = kOthers * kPitch<T, kWidth>;

  __device__ static int row() {
    return static_cast<int>(threadIdx.x) / 32 % kRowGroups * 16;
  }  // a warp's first
  __device__ static int column() { return static_cast<int>(threadIdx.x) / 32 / kRowGroups * kColumns; }
};

// [L, width] of one head, as in tiles.h.
struct Head {
  int64_t sample, head;  // elements from one to the next
  int64_t token, channel;
  int heads;
  __device__ int64_t first(unsigned index) const { return index / heads * sample + index % heads * head; }
};
struct Sides {
  Head q, k;  // also of o and v
  int queries, keys, width;
  float scale;
  bool causal;
  // Keys that queries before `end` meet, and whether a query meets a key.
  __device__ int keys_before(int end) const { return causal ? min(keys, end) : keys; }
  __device__ bool meets(int query, int key) const { return key < keys && (!causal || key <= query); }
};

// Tokens [first, first + kCount) to shared memory, zero past `length` and past `width`. kVector: by
// asynchronous copies of 16 bytes, which channels side by side and a width of whole 16 bytes allow.
template <bool kVector, int kWidth, int kCount, class T>
__device__ __forceinline__ void load_tokens(T* shared, const T* x, const Head& h, int first, int length,
                                            int width) {
  constexpr int kRow = kPitch<T, kWidth>;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  if constexpr (kVector) {
    constexpr int kEach = 16 / static_cast<int>(sizeof(T)), kChunks = kWidth / kEach;
    for (int i = thread; i < kCount * kChunks; i += threads) {
      const int row = i / kChunks, column = i % kChunks * kEach;
      const bool valid = first + row < length && column < width;
      cp_async16(shared + row * kRow + column, valid ? x + (first + row) * h.token + column : x,
                 valid ? 16 : 0);
    }
  } else {
    const bool along = h.channel == 1;
    for (int i = thread; i < kCount * kWidth; i += threads) {
      const int row = along ? i / kWidth : i % kCount, column = along ? i % kWidth : i / kCount;
      const bool valid = first + row < length && column < width;
      shared[row * kRow + column] = valid ? x[(first + row) * h.token + column * h.channel] : T(0.0f);
    }
  }
}

template <bool kVector, int kWidth, int kCount, class T>
__device__ __forceinline__ void store_tokens(const T* shared, T* x, const Head& h, int first, int length,
                                             int width) {
  constexpr int kRow = kPitch<T, kWidth>;
  constexpr int kEach = kVector ? 16 / static_cast<int>(sizeof(T)) : 1, kChunks = kWidth / kEach;
  const bool along = h.channel == 1;
  for (int i = static_cast<int>(threadIdx.x); i < kCount * kChunks; i += static_cast<int>(blockDim.x)) {
    const int row = along ? i / kChunks : i % kCount, column = (along ? i % kChunks : i / kCount) * kEach;
    if (first + row >= length || column >= width) continue;
    T* to = x + (first + row) * h.token + column * h.channel;
    if constexpr (kVector)
      store16(to, load16(shared + row * kRow + column));
    else
      *to = shared[row * kRow + column];
  }
}

template <class T>
struct ForwardArgs {
  const T *q, *k, *v;
  T* o;
  float* lse;
  Sides s;
};

template <class T, int kWidth, bool kVector>
__global__ void __launch_bounds__(Cut<T, kWidth, 256>::kThreads) forward(ForwardArgs<T> a) {
  using C = Cut<T, kWidth, 256>;
  constexpr int kRows = C::kRows, kOthers = C::kOthers, kTiles = kOthers / 8;
  const Sides& s = a.s;
  const int tiles = (s.queries + kRows - 1) / kRows, first = static_cast<int>(blockIdx.x) % tiles * kRows;
  const unsigned head = blockIdx.x / tiles;
  const T *k = a.k + s.k.first(head), *v = a.v + s.k.first(head);
  T* const query = dynamic_shared<T>();
  T *const key = query + C::kRowsSize, *const value = key + C::kOthersSize;
  T* const mine = query + C::row() * kPitch<T, kWidth>;

  load_tokens<kVector, kWidth, kRows>(query, a.q + s.q.first(head), s.q, first, s.queries, s.width);
  load_tokens<kVector, kWidth, kOthers>(key, k, s.k, 0, s.keys, s.width);
  cp_async_commit();
  load_tokens<kVector, kWidth, kOthers>(value, v, s.k, 0, s.keys, s.width);
  cp_async_commit();

  const float scale = s.scale * kLog2E;
  float sums[C::kColumns / 8][4], p[kTiles][4];
  float most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  clear(sums);
  const int keys = s.keys_before(first + kRows), row = first + C::row() + lane_row();
  for (int at = 0; at < keys; at += kOthers) {
    const int next = at + kOthers;
    cp_async_wait<1>();
    __syncthreads();
    scores<kWidth, kOthers>(mine, key, p);
    __syncthreads();
    if (next < keys) load_tokens<kVector, kWidth, kOthers>(key, k, s.k, next, s.keys, s.width);
    cp_async_commit();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = most[half];
#pragma unroll
      for (int i = 0; i < kTiles; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = p[i][half * 2 + e];
          x = s.meets(row + half * 8, at + i * 8 + lane_column() + e) ? x * scale : -INFINITY;
          largest = fmaxf(largest, x);
        }
      largest = row_max(largest);
      const float shrink = exp2f(most[half] - largest);
      most[half] = largest;
      total[half] *= shrink;
#pragma unroll
      for (int i = 0; i < kTiles; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = p[i][half * 2 + e];
          x = exp2f(x - largest);
          total[half] += x;
        }
#pragma unroll
      for (int i = 0; i < C::kColumns / 8; ++i) sums[i][half * 2] *= shrink, sums[i][half * 2 + 1] *= shrink;
    }
    cp_async_wait<1>();
    __syncthreads();
    gather<kWidth, kOthers, C::kColumns>(p, value + C::column(), sums);
    __syncthreads();
    if (next < keys) load_tokens<kVector, kWidth, kOthers>(value, v, s.k, next, s.keys, s.width);
    cp_async_commit();
  }
  const float low = row_sum(total[0]), high = row_sum(total[1]);
  if (C::column() == 0 && lane_column() == 0) {
    float* lse = a.lse + int64_t{head} * s.queries;
    if (row < s.queries) lse[row] = most[0] / kLog2E + logf(low);
    if (row + 8 < s.queries) lse[row + 8] = most[1] / kLog2E + logf(high);
  }
  put<kWidth>(mine + C::column(), sums, 1 / low, 1 / high);  // no warp reads the queries any more
  __syncthreads();
  store_tokens<kVector, kWidth, kRows>(query, a.o + s.q.first(head), s.q, first, s.queries, s.width);
}

// delta[row] = do[row] . o[row]. kWarps: a warp a row, along its channels; else a thread.
template <class T, bool kWarps>
__global__ void row_dots(const T* x, const T* y, float* delta, Sides s, int64_t rows) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, row = kWarps ? thread / 32 : thread;
  if (row >= rows) return;
  const int64_t at = s.q.first(static_cast<unsigned>(row / s.queries)) + row % s.queries * s.q.token;
  float sum = 0;
  for (int c = kWarps ? lane_of() : 0; c < s.width; c += kWarps ? 32 : 1)
    sum = fmaf(float(x[at + c * s.q.channel]), float(y[at + c * s.q.channel]), sum);
  if constexpr (kWarps) {
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, d);
    if (lane_of() == 0) delta[row] = sum;
  } else {
    delta[row] = sum;
  }
}

template <class T>
struct BackwardArgs {
  const T *q, *k, *v, *dout;
  const float *lse, *delta;
  T *dq, *dk, *dv;
  Sides s;
};

// Scores become p, dp becomes ds. f(i, e): {lse, delta} of an element; an infinite lse makes both 0.
template <int kTiles, class F>
__device__ __forceinline__ void to_gradients(float (&p)[kTiles][4], float (&dp)[kTiles][4], float scale,
                                             F f) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float2 of = f(i, e);
      p[i][e] = exp2f(p[i][e] * (scale * kLog2E) - of.x * kLog2E);
      dp[i][e] = p[i][e] * (dp[i][e] - of.y) * scale;
    }
}

template <class T, int kWidth, bool kVector>
__global__ void __launch_bounds__(Cut<T, kWidth, 256>::kThreads) query_gradient(BackwardArgs<T> a) {
  using C = Cut<T, kWidth, 256>;
  constexpr int kRows = C::kRows, kOthers = C::kOthers;
  const Sides& s = a.s;
  const int tiles = (s.queries + kRows - 1) / kRows, first = static_cast<int>(blockIdx.x) % tiles * kRows;
  const unsigned head = blockIdx.x / tiles;
  const T *k = a.k + s.k.first(head), *v = a.v + s.k.first(head);
  T* const query = dynamic_shared<T>();
  T *const dout = query + C::kRowsSize, *const key = dout + C::kRowsSize, *const value = key + C::kOthersSize;
  const int mine = C::row() * kPitch<T, kWidth>;

  load_tokens<kVector, kWidth, kRows>(query, a.q + s.q.first(head), s.q, first, s.queries, s.width);
  load_tokens<kVector, kWidth, kRows>(dout, a.dout + s.q.first(head), s.q, first, s.queries, s.width);
  load_tokens<kVector, kWidth, kOthers>(value, v, s.k, 0, s.keys, s.width);
  cp_async_commit();
  load_tokens<kVector, kWidth, kOthers>(key, k, s.k, 0, s.keys, s.width);
  cp_async_commit();

  const int keys = s.keys_before(first + kRows), row = first + C::row() + lane_row();
  float2 of[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t i = int64_t{head} * s.queries + row + half * 8;
    of[half] = row + half * 8 < s.queries ? make_float2(a.lse[i], a.delta[i]) : make_float2(0, 0);
  }
  float sums[C::kColumns / 8][4], p[kOthers / 8][4], dp[kOthers / 8][4];
  clear(sums);
  for (int at = 0; at < keys; at += kOthers) {
    const int next = at + kOthers;
    cp_async_wait<1>();
    __syncthreads();
    scores<kWidth, kOthers>(dout + mine, value, dp);
    __syncthreads();
    if (next < keys) load_tokens<kVector, kWidth, kOthers>(value, v, s.k, next, s.keys, s.width);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    scores<kWidth, kOthers>(query + mine, key, p);
    to_gradients(p, dp, s.scale, [&](int i, int e) {
      const bool met = s.meets(row + e / 2 * 8, at + i * 8 + lane_column() + e % 2);
      return met ? of[e / 2] : make_float2(INFINITY, 0);
    });
    gather<kWidth, kOthers, C::kColumns>(dp, key + C::column(), sums);
    __syncthreads();
    if (next < keys) load_tokens<kVector, kWidth, kOthers>(key, k, s.k, next, s.keys, s.width);
    cp_async_commit();
  }
  put<kWidth>(query + mine + C::column(), sums, 1, 1);
  __syncthreads();
  store_tokens<kVector, kWidth, kRows>(query, a.dq + s.q.first(head), s.q, first, s.queries, s.width);
}

template <class T, int kWidth, bool kVector>
__global__ void __launch_bounds__(Cut<T, kWidth, 128>::kThreads) key_gradient(BackwardArgs<T> a) {
  using C = Cut<T, kWidth, 128>;
  constexpr int kRows = C::kRows, kOthers = C::kOthers;
  const Sides& s = a.s;
  const int tiles = (s.keys + kRows - 1) / kRows, first = static_cast<int>(blockIdx.x) % tiles * kRows;
  const unsigned head = blockIdx.x / tiles;
  const T *q = a.q + s.q.first(head), *d = a.dout + s.q.first(head);
  const float *lse = a.lse + int64_t{head} * s.queries, *delta = a.delta + int64_t{head} * s.queries;
  T* const key = dynamic_shared<T>();
  T *const value = key + C::kRowsSize, *const query = value + C::kRowsSize,
           *const dout = query + C::kOthersSize;
  const int mine = C::row() * kPitch<T, kWidth>, row = first + C::row() + lane_row();
  // Queries before it meet none of these keys; one tile at least is waited for.
  const int begin = s.causal ? min(first, s.queries - 1) / kOthers * kOthers : 0;

  load_tokens<kVector, kWidth, kRows>(key, a.k + s.k.first(head), s.k, first, s.keys, s.width);
  load_tokens<kVector, kWidth, kRows>(value, a.v + s.k.first(head), s.k, first, s.keys, s.width);
  load_tokens<kVector, kWidth, kOthers>(query, q, s.q, begin, s.queries, s.width);
  cp_async_commit();
  load_tokens<kVector, kWidth, kOthers>(dout, d, s.q, begin, s.queries, s.width);
  cp_async_commit();

  float sums_k[C::kColumns / 8][4], sums_v[C::kColumns / 8][4], p[kOthers / 8][4], dp[kOthers / 8][4];
  clear(sums_k);
  clear(sums_v);
  for (int at = begin; at < s.queries; at += kOthers) {
    const int next = at + kOthers;
    cp_async_wait<1>();
    __syncthreads();
    scores<kWidth, kOthers>(key + mine, query, p);
    cp_async_wait<0>();
    __syncthreads();
    scores<kWidth, kOthers>(value + mine, dout, dp);
    to_gradients(p, dp, s.scale, [&](int i, int e) {
      const int query_row = at + i * 8 + lane_column() + e % 2;
      const bool met = query_row < s.queries && s.meets(query_row, row + e / 2 * 8);
      return met ? make_float2(lse[query_row], delta[query_row]) : make_float2(INFINITY, 0);
    });
    gather<kWidth, kOthers, C::kColumns>(p, dout + C::column(), sums_v);
    gather<kWidth, kOthers, C::kColumns>(dp, query + C::column(), sums_k);
    __syncthreads();
    if (next < s.queries) load_tokens<kVector, kWidth, kOthers>(query, q, s.q, next, s.queries, s.width);
    cp_async_commit();
    if (next < s.queries) load_tokens<kVector, kWidth, kOthers>(dout, d, s.q, next, s.queries, s.width);
    cp_async_commit();
  }
  put<kWidth>(key + mine + C::column(), sums_k, 1, 1);
  put<kWidth>(value + mine + C::column(), sums_v, 1, 1);
  __syncthreads();
  store_tokens<kVector, kWidth, kRows>(key, a.dk + s.k.first(head), s.k, first, s.keys, s.width);
  store_tokens<kVector, kWidth, kRows>(value, a.dv + s.k.first(head), s.k, first, s.keys, s.width);
}

// --- the host's side ---

class Geometry {
 public:
  Geometry(const KernelRequest& r) {
    const auto& p = r.params.as<AttentionParams>();
    const TokenSizes q(r.in[0]), k(r.in[1]);
    s.queries = static_cast<int>(q.tokens), s.keys = static_cast<int>(k.tokens);
    s.width = static_cast<int>(q.channels / p.heads), s.scale = p.scale, s.causal = p.causal;
    const auto head = [&](const TokenSizes& x) {
      const int64_t c = x.channels, l = x.tokens, w = c / p.heads;
      return x.channels_last ? Head{c * l, w, c, 1, static_cast<int>(p.heads)}
                             : Head{c * l, w * l, 1, l, static_cast<int>(p.heads)};
    };
    s.q = head(q), s.k = head(k);
    heads = r.in[0].shape[0] * p.heads;
    vector = q.channels_last && s.width * size_of(r.in[0].dtype) % 16 == 0;
  }
  int64_t rows() const { return heads * s.queries; }
  unsigned tiles(int length, int rows) const {
    return static_cast<unsigned>((length + rows - 1) / rows * heads);
  }

  Sides s{};
  int64_t heads = 0;
  bool vector = false;
};

// f(integral_constant width, bool_constant vector) for the least width that holds a head.
template <class F>
void for_width(const Geometry& g, F f) {
  const auto with = [&](auto width) {
    if (g.vector)
      f(width, std::true_type());
    else
      f(width, std::false_type());
  };
  if (g.s.width <= 32) return with(std::integral_constant<int, 32>());
  if (g.s.width <= 64) return with(std::integral_constant<int, 64>());
  if (g.s.width <= 128) return with(std::integral_constant<int, 128>());
  if (g.s.width <= 256) return with(std::integral_constant<int, 256>());
  with(std::integral_constant<int, 512>());
}

template <class T>
class Forward final : public Kernel {
 public:
  explicit Forward(const KernelRequest& r) : g_(r) {}
  void run(const KernelArgs& args) override {
    const ForwardArgs<T> a{args.in[0].as<T>(),  args.in[1].as<T>(),      args.in[2].as<T>(),
                           args.out[0].as<T>(), args.out[1].as<float>(), g_.s};
    for_width(g_, [&](auto width, auto vector) {
      using C = Cut<T, width(), 256>;
      launch(forward<T, width(), vector()>, g_.tiles(g_.s.queries, C::kRows), C::kThreads,
             (C::kRowsSize + 2 * C::kOthersSize) * sizeof(T), args.stream, a);
    });
  }

 private:
  Geometry g_;
};

template <class T>
class Backward final : public Kernel {
 public:
  explicit Backward(const KernelRequest& r) : g_(r) {}
  int64_t workspace_bytes() const override { return g_.rows() * size_of(DType::f32); }
  void run(const KernelArgs& args) override {
    auto* delta = static_cast<float*>(args.workspace);
    const auto *o = args.in[3].as<T>(), *dout = args.in[5].as<T>();
    const BackwardArgs<T> a{
        args.in[0].as<T>(),  args.in[1].as<T>(),  args.in[2].as<T>(),  dout, args.in[4].as<float>(), delta,
        args.out[0].as<T>(), args.out[1].as<T>(), args.out[2].as<T>(), g_.s};
    if (g_.s.q.channel == 1)
      launch(row_dots<T, true>, blocks(g_.rows(), 8), 256, 0, args.stream, dout, o, delta, g_.s, g_.rows());
    else
      launch(row_dots<T, false>, blocks(g_.rows(), 128), 128, 0, args.stream, dout, o, delta, g_.s,
             g_.rows());
    for_width(g_, [&](auto width, auto vector) {
      using Q = Cut<T, width(), 256>;
      using K = Cut<T, width(), 128>;
      constexpr size_t kShared = (2 * Q::kRowsSize + 2 * Q::kOthersSize) * sizeof(T);
      launch(query_gradient<T, width(), vector()>, g_.tiles(g_.s.queries, Q::kRows), Q::kThreads, kShared,
             args.stream, a);
      launch(key_gradient<T, width(), vector()>, g_.tiles(g_.s.keys, K::kRows), K::kThreads, kShared,
             args.stream, a);
    });
  }

 private:
  Geometry g_;
};

template <class K>
void add(Registry& r, const char* op, Device device, DType dtype, Layout layout) {
  r.add({.op = op,
         .name = layout == Layout::nhwc ? "tiled_nhwc" : "tiled",
         .device = device,
         .layout = layout == Layout::nhwc ? LayoutClass::nhwc : LayoutClass::plain,
         .dtype = dtype,
         .bit_exact = {.threads = true, .shard = true},
         .make = [layout, dtype](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           for (size_t i = 0; i < 3; ++i)
             if (q.in[i].layout != layout || q.in[i].dtype != dtype) return nullptr;
           const int64_t width = TokenSizes(q.in[0]).channels / q.params.as<AttentionParams>().heads;
           return width <= 512 ? std::make_unique<K>(q) : nullptr;
         }});
}

}  // namespace

void register_attention(Registry& r, Device device) {
  for (Layout layout : {Layout::plain, Layout::nhwc}) {
    add<Forward<float>>(r, "attention", device, DType::f32, layout);
    add<Forward<bf16>>(r, "attention", device, DType::bf16, layout);
    add<Backward<float>>(r, "attention_grad", device, DType::f32, layout);
    add<Backward<bf16>>(r, "attention_grad", device, DType::bf16, layout);
  }
}

}  // namespace lockstep::LOCKSTEP_DEVICE
