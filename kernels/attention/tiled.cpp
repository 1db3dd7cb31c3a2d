// SPDX-License-Identifier: Apache-2.0
// Attention forward and backward in tiles. A task is a few tiles of queries, of the gradients a head of a sample,
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

constexpr int64_t kScores = kTileOthers * kPanel;

// A head's keys or values, copied: a token's channels beside each other, then the next token's. As they come, a head's part lies
// in as many pages as there are tokens, and its channels may all fall into the same lines of the cache; here an odd number of
// lines lies between tokens.
class Copied {
 public:
  Copied(int64_t tokens, int64_t width)
      : tokens_(tokens), width_(width), stride_(((width + kLine - 1) / kLine | 1) * kLine) {}
  int64_t floats() const { return tokens_ * stride_; }

  Input operator()(const Input& x, float* to) const {
    if (x.channel == 1)
      for (int64_t i = 0; i < tokens_; ++i) std::copy_n(x.at(i), width_, to + i * stride_);
    else
      transpose(x.data, x.channel, width_, tokens_, to, stride_);
    return {to, stride_, 1};
  }

 private:
  static constexpr int64_t kLine = 16;  // floats
  int64_t tokens_, width_, stride_;
};

class Forward final : public Kernel {
 public:
  explicit Forward(const KernelRequest& r)
      : g_(r.params.as<AttentionParams>(), r.in[0], r.in[1]),
        per_head_(tiles_of(g_.queries)),
        together_(std::clamp<int64_t>(g_.n * g_.heads * per_head_ / (4 * r.threads), 1, kMostTogether)),
        copied_(g_.keys, g_.width),
        threads_(r.threads) {}

  int64_t workspace_bytes() const override { return threads_ * per_thread() * size_of(DType::f32); }

  void run(const KernelArgs& args) override {
    const auto *q = args.in[0].as<float>(), *k = args.in[1].as<float>(), *v = args.in[2].as<float>();
    auto *o = args.out[0].as<float>(), *lse = args.out[1].as<float>();
    const int64_t tasks = (per_head_ + together_ - 1) / together_;  // of a head
    parallel_ranges(g_.n * g_.heads * tasks, threads_, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch{static_cast<float*>(args.workspace) + thread_index() * per_thread()};
      float *k_copy = scratch.take(copied_.floats()), *v_copy = scratch.take(copied_.floats());
      Input keys{}, values{};
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / tasks, task = i % tasks;
        if (i == begin || task == 0) {
          keys = copied_(g_.tokens<const float>(k, head, g_.keys), k_copy);
          values = copied_(g_.tokens<const float>(v, head, g_.keys), v_copy);
        }
        run_tiles(g_.tokens<const float>(q, head, g_.queries), keys, values, g_.tokens(o, head, g_.queries),
                  lse + head * g_.queries, task * together_, scratch);
      }
    });
  }

 private:
  static constexpr int64_t kMostTogether = 4;

  // A tile of queries.
  struct Queries {
    int64_t first, count;
    float *query, *sums;  // [width][32]
    Softmax state;
  };

  int64_t per_thread() const {
    return 2 * copied_.floats() + kScores + together_ * (2 * g_.width * kPanel + 3 * kPanel);
  }

  Queries begin(const Input& q, int64_t tile, Scratch& scratch) const {
    const int64_t first = tile * kPanel;
    const Queries t{first,
                    std::min(kPanel, g_.queries - first),
                    scratch.take(g_.width * kPanel),
                    scratch.take(g_.width * kPanel),
                    {scratch.take(kPanel), scratch.take(kPanel), scratch.take(kPanel)}};
    std::fill_n(t.state.most, kPanel, -std::numeric_limits<float>::infinity());
    std::fill_n(t.state.sum, kPanel, 0.0f);
    load_tile(q, first, t.count, g_.width, t.query);
    return t;
  }

  // Tiles from `tile` on, which share each pass over the keys and values.
  void run_tiles(const Input& q, const Input& k, const Input& v, const Tokens<float>& o, float* lse,
                 int64_t tile, Scratch scratch) const {
    float* score = scratch.take(kScores);
    Queries tiles[kMostTogether];
    const int64_t count = std::min(together_, per_head_ - tile);
    for (int64_t i = 0; i < count; ++i) tiles[i] = begin(q, tile + i, scratch);
    for (int64_t key = 0; key < g_.keys; key += kTileOthers)
      for (int64_t i = 0; i < count; ++i) {
        const Queries& t = tiles[i];
        const int64_t met = g_.causal ? std::min(g_.keys, t.first + t.count) : g_.keys;
        if (const int64_t keys = std::min(kTileOthers, met - key); keys > 0) meet(t, k, v, key, keys, score);
      }
    for (int64_t i = 0; i < count; ++i) {
      const Queries& t = tiles[i];
      softmax_finish(t.state);
      scale_columns(t.sums, g_.width, t.state.sum);
      store_tile(t.sums, o, t.first, t.count, g_.width);
      std::copy_n(t.state.most, t.count, lse + t.first);
    }
  }

  void meet(const Queries& t, const Input& k, const Input& v, int64_t key, int64_t keys, float* score) const {
    product_over_channels(k, key, keys, g_.width, t.query, score);
    if (g_.causal) mask_causal(score, key, keys, t.first);
    softmax_tile(score, keys, g_.scale, t.state);
    if (key > 0) scale_columns(t.sums, g_.width, t.state.shrink);
    product_over_tokens(v, key, keys, g_.width, score, t.sums, key > 0);
  }

  AttentionGeometry g_;
  int64_t per_head_, together_;  // tiles of queries
  Copied copied_;
  int threads_;
};

class Backward final : public Kernel {
 public:
  explicit Backward(const KernelRequest& r)
      : g_(r.params.as<AttentionParams>(), r.in[0], r.in[1]),
        tiles_(tiles_of(g_.queries)),
        key_tiles_(tiles_of(g_.keys)),
        copied_(g_.keys, g_.width),
        threads_(r.threads) {}

  int64_t workspace_bytes() const override { return threads_ * per_thread() * size_of(DType::f32); }

  void run(const KernelArgs& args) override {
    const auto *q = args.in[0].as<float>(), *k = args.in[1].as<float>(), *v = args.in[2].as<float>();
    const auto *o = args.in[3].as<float>(), *lse = args.in[4].as<float>(), *dout = args.in[5].as<float>();
    auto *dq = args.out[0].as<float>(), *dk = args.out[1].as<float>(), *dv = args.out[2].as<float>();
    parallel_ranges(g_.n * g_.heads, threads_, 1, [&](int64_t begin, int64_t end) {
      const Work work(*this, static_cast<float*>(args.workspace) + thread_index() * per_thread());
      for (int64_t head = begin; head < end; ++head) {
        const Input keys = copied_(g_.tokens<const float>(k, head, g_.keys), work.k);
        const Input values = copied_(g_.tokens<const float>(v, head, g_.keys), work.v);
        for (int64_t tile = 0; tile < tiles_; ++tile)
          query_tile({g_.tokens(q, head, g_.queries), keys, values, g_.tokens(o, head, g_.queries),
                      g_.tokens(dout, head, g_.queries), lse + head * g_.queries},
                     g_.tokens(dq, head, g_.queries), tile, work);
        for (int64_t tile = 0; tile < key_tiles_; ++tile) {
          const int64_t first = tile * kPanel, count = std::min(kPanel, g_.keys - first);
          store_tile(work.dk + tile * tile_size(), g_.tokens(dk, head, g_.keys), first, count, g_.width);
          store_tile(work.dv + tile * tile_size(), g_.tokens(dv, head, g_.keys), first, count, g_.width);
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
    float *k, *v;                 // copied
    float *query, *dout, *dq;     // [width][32]
    float *score, *dscore;        // [keys][32]
    float *by_query, *dby_query;  // the same turned: [queries][32]
    float *lse, *delta;           // [32]
    float *dk, *dv;               // [key_tiles_][width][32]

    Work(const Backward& b, float* memory) {
      Scratch scratch{memory};
      for (float** tokens : {&k, &v}) *tokens = scratch.take(b.copied_.floats());
      for (float** tile : {&query, &dout, &dq}) *tile = scratch.take(b.tile_size());
      for (float** scores : {&score, &dscore, &by_query, &dby_query}) *scores = scratch.take(kPanel * kPanel);
      for (float** column : {&lse, &delta}) *column = scratch.take(kPanel);
      for (float** sums : {&dk, &dv}) *sums = scratch.take(b.key_tiles_ * b.tile_size());
      // Columns past the last key are never written, and their sums never read.
      std::fill_n(by_query, kPanel * kPanel, 0.0f);
      std::fill_n(dby_query, kPanel * kPanel, 0.0f);
    }
  };

  int64_t tile_size() const { return g_.width * kPanel; }
  int64_t per_thread() const {
    return 2 * copied_.floats() + (3 + 2 * key_tiles_) * tile_size() + 4 * kPanel * kPanel + 2 * kPanel;
  }

  // dq of a tile of queries, and what these add to dk and dv of all keys.
  void query_tile(const Head& at, const Tokens<float>& dq, int64_t tile, const Work& w) const {
    const int64_t first = tile * kPanel, count = std::min(kPanel, g_.queries - first);
    load_tile(at.q, first, count, g_.width, w.query);
    load_tile(at.dout, first, count, g_.width, w.dout);
    load_tile(at.o, first, count, g_.width, w.dq);
    column_dots(w.dout, w.dq, g_.width, w.delta);
    std::fill_n(std::copy_n(at.lse + first, count, w.lse), kPanel - count, 0.0f);
    for (int64_t i = 0; i < key_tiles_; ++i) {
      const int64_t key = i * kPanel, keys = std::min(kPanel, g_.keys - key);
      if (g_.causal && key >= first + count) {  // no query meets them; the first ones begin their sums
        if (first > 0) break;
        for (float* sums : {w.dk, w.dv}) std::fill_n(sums + i * tile_size(), tile_size(), 0.0f);
        continue;
      }
      product_over_channels(at.k, key, keys, g_.width, w.query, w.score);
      product_over_channels(at.v, key, keys, g_.width, w.dout, w.dscore);
      if (g_.causal) mask_causal(w.score, key, keys, first);
      gradient_tile(w.score, w.dscore, keys, g_.scale, w.lse, w.delta);
      product_over_tokens(at.k, key, keys, g_.width, w.dscore, w.dq, key > 0);
      transpose(w.score, kPanel, keys, count, w.by_query, kPanel);
      transpose(w.dscore, kPanel, keys, count, w.dby_query, kPanel);
      product_over_tokens(at.dout, first, count, g_.width, w.by_query, w.dv + i * tile_size(), first > 0);
      product_over_tokens(at.q, first, count, g_.width, w.dby_query, w.dk + i * tile_size(), first > 0);
    }
    store_tile(w.dq, dq, first, count, g_.width);
  }

  AttentionGeometry g_;
  int64_t tiles_, key_tiles_;  // of a head
  Copied copied_;
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
