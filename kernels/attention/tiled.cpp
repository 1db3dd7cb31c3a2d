// SPDX-License-Identifier: Apache-2.0
// Attention forward and backward in tiles. A task is a tile of queries, of the gradients a head of a sample,
// which computes its scores once; so every sum runs in one thread and in one order.
#include <limits>

#include "kernels/attention/tiles.h"
#include "kernels/core/parallel.h"
#include "kernels/simd/transpose.h"
#include "kernels/simd/widened.h"

namespace lockstep {
namespace {

using Input = Tokens<const float>;

// A thread's scratch memory, handed out from its start.
struct Scratch {
  float* next;
  float* take(int64_t floats) {
    float* p = next;
    next += (floats + kLanes - 1) / kLanes * kLanes;
    return p;
  }
};

// f(first, count) for pieces of up to kTileOthers tokens.
template <class F>
void for_each_other(int64_t length, F f) {
  for (int64_t i = 0; i < length; i += kTileOthers) f(i, std::min(kTileOthers, length - i));
}

constexpr int64_t kScores = kTileOthers * kTileColumns;

// y (+)= (x of `count` tokens from `first` on) * tile, over channels.
void scores(const Input& x, int64_t first, int64_t count, int64_t width, const float* tile, float* y,
            int64_t columns) {
  tile_product({x.at(first), count, x.token, width, x.channel, tile, y, columns, false});
}
// sums[c, column] (+)= x[token, c] * weights[token, column]
void gather(const Input& x, int64_t first, int64_t count, int64_t width, const float* weights, float* sums,
            int64_t columns) {
  tile_product({x.at(first), width, x.channel, count, x.token, weights, sums, columns, first > 0});
}

class Forward final : public Kernel {
 public:
  explicit Forward(const KernelRequest& r)
      : g_(r.params.as<AttentionParams>(), r.in[0], r.in[1]), cut_(g_.queries), threads_(r.threads) {}

  int64_t workspace_bytes() const override { return threads_ * per_thread() * size_of(DType::f32); }

  void run(const KernelArgs& args) override {
    const auto *q = args.in[0].as<float>(), *k = args.in[1].as<float>(), *v = args.in[2].as<float>();
    auto *o = args.out[0].as<float>(), *lse = args.out[1].as<float>();
    parallel_ranges(g_.n * g_.heads * cut_.tiles, threads_, 1, [&](int64_t begin, int64_t end) {
      float* scratch = static_cast<float*>(args.workspace) + thread_index() * per_thread();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / cut_.tiles;
        run_tile(g_.tokens<const float>(q, head, g_.queries), g_.tokens<const float>(k, head, g_.keys),
                 g_.tokens<const float>(v, head, g_.keys), g_.tokens(o, head, g_.queries),
                 lse + head * g_.queries, i % cut_.tiles, Scratch{scratch});
      }
    });
  }

 private:
  int64_t per_thread() const { return 2 * g_.width * cut_.per + kScores + 3 * kTileColumns; }

  void run_tile(const Input& q, const Input& k, const Input& v, const Tokens<float>& o, float* lse,
                int64_t tile, Scratch scratch) const {
    const int64_t first = cut_.begin(tile), count = cut_.count(tile), columns = cut_.per;
    float *query = scratch.take(g_.width * columns), *sums = scratch.take(g_.width * columns);
    float* score = scratch.take(kScores);
    const Softmax state{scratch.take(kTileColumns), scratch.take(kTileColumns), scratch.take(kTileColumns)};
    std::fill_n(state.most, columns, -std::numeric_limits<float>::infinity());
    std::fill_n(state.sum, columns, 0.0f);
    load_tile(q, first, count, g_.width, query, columns);
    const int64_t met = g_.causal ? std::min(g_.keys, first + count) : g_.keys;
    for_each_other(met, [&](int64_t key, int64_t keys) {
      scores(k, key, keys, g_.width, query, score, columns);
      if (g_.causal) mask_causal(score, key, keys, first, columns);
      softmax_tile(score, keys, columns, g_.scale, state);
      if (key > 0) scale_columns(sums, g_.width, columns, state.shrink);
      gather(v, key, keys, g_.width, score, sums, columns);
    });
    softmax_finish(columns, state);
    scale_columns(sums, g_.width, columns, state.sum);
    store_tile(sums, columns, o, first, count, g_.width);
    std::copy_n(state.most, count, lse + first);
  }

  AttentionGeometry g_;
  TileCut cut_;  // of the queries
  int threads_;
};

class Backward final : public Kernel {
 public:
  explicit Backward(const KernelRequest& r)
      : g_(r.params.as<AttentionParams>(), r.in[0], r.in[1]),
        queries_(g_.queries),
        keys_(g_.keys),
        threads_(r.threads) {}

  int64_t workspace_bytes() const override { return threads_ * per_thread() * size_of(DType::f32); }

  void run(const KernelArgs& args) override {
    const auto *q = args.in[0].as<float>(), *k = args.in[1].as<float>(), *v = args.in[2].as<float>();
    const auto *o = args.in[3].as<float>(), *lse = args.in[4].as<float>(), *dout = args.in[5].as<float>();
    auto *dq = args.out[0].as<float>(), *dk = args.out[1].as<float>(), *dv = args.out[2].as<float>();
    parallel_ranges(g_.n * g_.heads, threads_, 1, [&](int64_t begin, int64_t end) {
      const Work work(*this, static_cast<float*>(args.workspace) + thread_index() * per_thread());
      for (int64_t head = begin; head < end; ++head) {
        const Input keys = g_.tokens(k, head, g_.keys), values = g_.tokens(v, head, g_.keys);
        for (int64_t tile = 0; tile < queries_.tiles; ++tile)
          query_tile({g_.tokens(q, head, g_.queries), keys, values, g_.tokens(o, head, g_.queries),
                      g_.tokens(dout, head, g_.queries), lse + head * g_.queries},
                     g_.tokens(dq, head, g_.queries), tile, work);
        for (int64_t tile = 0; tile < keys_.tiles; ++tile) {
          const int64_t first = keys_.begin(tile), count = keys_.count(tile);
          store_tile(work.dk + tile * tile_size(), keys_.per, g_.tokens(dk, head, g_.keys), first, count,
                     g_.width);
          store_tile(work.dv + tile * tile_size(), keys_.per, g_.tokens(dv, head, g_.keys), first, count,
                     g_.width);
        }
      }
    });
  }

 private:
  struct Head {
    Input q, k, v, o, dout;
    const float* lse;
  };

  // A thread's memory.
  struct Work {
    float *query, *dout, *dq;     // [width][queries_.per]
    float *score, *dscore;        // [keys][queries_.per]
    float *by_query, *dby_query;  // the same turned: [queries][keys_.per]
    float *lse, *delta;           // [queries_.per]
    float *dk, *dv;               // [keys_.tiles][width][keys_.per]

    Work(const Backward& b, float* memory) {
      Scratch scratch{memory};
      for (float** tile : {&query, &dout, &dq}) *tile = scratch.take(b.g_.width * b.queries_.per);
      for (float** scores : {&score, &dscore, &by_query, &dby_query}) *scores = scratch.take(kScores);
      for (float** column : {&lse, &delta}) *column = scratch.take(kTileColumns);
      for (float** sums : {&dk, &dv}) *sums = scratch.take(b.keys_.tiles * b.tile_size());
      // Columns past the last key are never written, and their sums never read.
      std::fill_n(by_query, kScores, 0.0f);
      std::fill_n(dby_query, kScores, 0.0f);
    }
  };

  int64_t tile_size() const { return g_.width * keys_.per; }
  int64_t per_thread() const {
    return 3 * g_.width * queries_.per + 4 * kScores + 2 * kTileColumns + 2 * keys_.tiles * tile_size();
  }

  // dq of a tile of queries, and what these add to dk and dv of all keys.
  void query_tile(const Head& at, const Tokens<float>& dq, int64_t tile, const Work& w) const {
    const int64_t first = queries_.begin(tile), count = queries_.count(tile), columns = queries_.per;
    load_tile(at.q, first, count, g_.width, w.query, columns);
    load_tile(at.dout, first, count, g_.width, w.dout, columns);
    load_tile(at.o, first, count, g_.width, w.dq, columns);
    column_dots(w.dout, w.dq, g_.width, columns, w.delta);
    std::fill_n(std::copy_n(at.lse + first, count, w.lse), columns - count, 0.0f);
    for (int64_t i = 0; i < keys_.tiles; ++i) {
      const int64_t key = keys_.begin(i), keys = keys_.count(i);
      if (g_.causal && key >= first + count) {  // no query meets them; the first ones begin their sums
        if (first > 0) break;
        for (float* sums : {w.dk, w.dv}) std::fill_n(sums + i * tile_size(), tile_size(), 0.0f);
        continue;
      }
      scores(at.k, key, keys, g_.width, w.query, w.score, columns);
      scores(at.v, key, keys, g_.width, w.dout, w.dscore, columns);
      if (g_.causal) mask_causal(w.score, key, keys, first, columns);
      gradient_tile(w.score, w.dscore, keys, columns, g_.scale, w.lse, w.delta);
      gather(at.k, key, keys, g_.width, w.dscore, w.dq, columns);
      transpose(w.score, columns, keys, count, w.by_query, keys_.per);
      transpose(w.dscore, columns, keys, count, w.dby_query, keys_.per);
      gather(at.dout, first, count, g_.width, w.by_query, w.dv + i * tile_size(), keys_.per);
      gather(at.q, first, count, g_.width, w.dby_query, w.dk + i * tile_size(), keys_.per);
    }
    store_tile(w.dq, columns, dq, first, count, g_.width);
  }

  AttentionGeometry g_;
  TileCut queries_, keys_;
  int threads_;
};

template <class K, Layout layout>
std::unique_ptr<Kernel> make(const KernelRequest& q) {
  for (size_t i = 0; i < 3; ++i)
    if (q.in[i].layout != layout || q.in[i].dtype != DType::f32) return nullptr;
  return std::make_unique<K>(q);
}

template <class K, Layout layout>
void add(Registry& r, const char* op, LayoutClass of, const FollowBatch& all) {
  for (DType dtype : {DType::f32, DType::bf16})
    r.add({.op = op,
           .name = layout == Layout::nhwc ? "tiled_nhwc" : "tiled",
           .layout = of,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = true},
           .make = [dtype, all](const KernelRequest& q) {
             return dtype == DType::f32 ? make<K, layout>(q) : make_widened(q, make<K, layout>, all);
           }});
}

template <Layout layout>
void add_both(Registry& r, LayoutClass of) {
  add<Forward, layout>(r, "attention", of, {.in = {0, 1, 2}, .out = {0, 1}});
  add<Backward, layout>(r, "attention_grad", of, {.in = {0, 1, 2, 3, 4, 5}, .out = {0, 1, 2}});
}

}  // namespace

void add_attention_tiled(Registry& r) {
  add_both<Layout::plain>(r, LayoutClass::plain);
  add_both<Layout::nhwc>(r, LayoutClass::nhwc);
}

}  // namespace lockstep
