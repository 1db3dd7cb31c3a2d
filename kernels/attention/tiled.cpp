// Attention forward and backward in tiles. Tiles are tasks of their own: the gradient of the queries is
// computed by tiles of queries, those of keys and values by tiles of keys, each from recomputed scores, so
// every sum runs in one thread and in one order.
#include <limits>

#include "kernels/attention/tiles.h"
#include "kernels/core/parallel.h"

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

// f(head, tile, scratch) for all tiles of all heads.
template <class F>
void for_each_tile(int64_t heads, const TileCut& cut, int threads, float* scratch, int64_t per_thread, F f) {
  parallel_ranges(heads * cut.tiles, threads, 1, [&](int64_t begin, int64_t end) {
    float* mine = scratch + omp_get_thread_num() * per_thread;
    for (int64_t i = begin; i < end; ++i) f(i / cut.tiles, i % cut.tiles, Scratch{mine});
  });
}

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
    for_each_tile(g_.n * g_.heads, cut_, threads_, static_cast<float*>(args.workspace), per_thread(),
                  [&](int64_t head, int64_t tile, Scratch scratch) {
                    run_tile(g_.tokens<const float>(q, head, g_.queries),
                             g_.tokens<const float>(k, head, g_.keys),
                             g_.tokens<const float>(v, head, g_.keys), g_.tokens(o, head, g_.queries),
                             lse + head * g_.queries, tile, scratch);
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
    for_each_other(g_.keys, [&](int64_t key, int64_t keys) {
      scores(k, key, keys, g_.width, query, score, columns);
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

  int64_t workspace_bytes() const override {
    return (g_.n * g_.heads * g_.queries + kLanes + threads_ * per_thread()) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    const auto *q = args.in[0].as<float>(), *k = args.in[1].as<float>(), *v = args.in[2].as<float>();
    const auto *o = args.in[3].as<float>(), *lse = args.in[4].as<float>(), *dout = args.in[5].as<float>();
    auto *dq = args.out[0].as<float>(), *dk = args.out[1].as<float>(), *dv = args.out[2].as<float>();
    const int64_t heads = g_.n * g_.heads;
    Scratch workspace{static_cast<float*>(args.workspace)};
    float* delta = workspace.take(heads * g_.queries);
    const auto head_of = [&](int64_t head) {
      return Head{g_.tokens(q, head, g_.queries),    g_.tokens(k, head, g_.keys), g_.tokens(v, head, g_.keys),
                  g_.tokens(dout, head, g_.queries), lse + head * g_.queries,     delta + head * g_.queries};
    };
    for_each_tile(
        heads, queries_, threads_, workspace.next, per_thread(), [&](int64_t head, int64_t tile, Scratch s) {
          query_tile(head_of(head), g_.tokens(o, head, g_.queries), g_.tokens(dq, head, g_.queries), tile, s);
        });
    for_each_tile(
        heads, keys_, threads_, workspace.next, per_thread(), [&](int64_t head, int64_t tile, Scratch s) {
          key_tile(head_of(head), g_.tokens(dk, head, g_.keys), g_.tokens(dv, head, g_.keys), tile, s);
        });
  }

 private:
  struct Head {
    Input q, k, v, dout;
    const float* lse;
    float* delta;
  };

  int64_t per_thread() const {
    return 4 * g_.width * std::max(queries_.per, keys_.per) + 2 * kScores + 2 * kTileColumns;
  }

  // dq, and delta for the tiles of keys.
  void query_tile(const Head& at, const Input& o, const Tokens<float>& dq, int64_t tile,
                  Scratch scratch) const {
    const int64_t first = queries_.begin(tile), count = queries_.count(tile), columns = queries_.per;
    const int64_t size = g_.width * columns;
    float *query = scratch.take(size), *dout = scratch.take(size), *sums = scratch.take(size);
    float *score = scratch.take(kScores), *dp = scratch.take(kScores);
    float* lse = scratch.take(kTileColumns);  // padded
    float* delta = scratch.take(kTileColumns);
    load_tile(at.q, first, count, g_.width, query, columns);
    load_tile(at.dout, first, count, g_.width, dout, columns);
    load_tile(o, first, count, g_.width, sums, columns);
    column_dots(dout, sums, g_.width, columns, delta);
    std::copy_n(delta, count, at.delta + first);
    std::fill_n(std::copy_n(at.lse + first, count, lse), columns - count, 0.0f);
    for_each_other(g_.keys, [&](int64_t key, int64_t keys) {
      scores(at.k, key, keys, g_.width, query, score, columns);
      scores(at.v, key, keys, g_.width, dout, dp, columns);
      gradient_tile(score, dp, keys, columns, g_.scale, lse, delta, true);
      gather(at.k, key, keys, g_.width, dp, sums, columns);
    });
    store_tile(sums, columns, dq, first, count, g_.width);
  }

  void key_tile(const Head& at, const Tokens<float>& dk, const Tokens<float>& dv, int64_t tile,
                Scratch scratch) const {
    const int64_t first = keys_.begin(tile), count = keys_.count(tile), columns = keys_.per;
    const int64_t size = g_.width * columns;
    float *key = scratch.take(size), *value = scratch.take(size), *sums_k = scratch.take(size);
    float *sums_v = scratch.take(size), *score = scratch.take(kScores), *dp = scratch.take(kScores);
    load_tile(at.k, first, count, g_.width, key, columns);
    load_tile(at.v, first, count, g_.width, value, columns);
    for_each_other(g_.queries, [&](int64_t query, int64_t queries) {
      scores(at.q, query, queries, g_.width, key, score, columns);
      scores(at.dout, query, queries, g_.width, value, dp, columns);
      gradient_tile(score, dp, queries, columns, g_.scale, at.lse + query, at.delta + query, false);
      gather(at.dout, query, queries, g_.width, score, sums_v, columns);
      gather(at.q, query, queries, g_.width, dp, sums_k, columns);
    });
    store_tile(sums_k, columns, dk, first, count, g_.width);
    store_tile(sums_v, columns, dv, first, count, g_.width);
  }

  AttentionGeometry g_;
  TileCut queries_, keys_;
  int threads_;
};

template <class K>
void add(Registry& r, const char* op, Layout layout, LayoutClass of) {
  r.add({.op = op,
         .name = layout == Layout::nhwc ? "tiled_nhwc" : "tiled",
         .layout = of,
         .bit_exact = {.threads = true, .shard = true},
         .make = [layout](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           for (size_t i = 0; i < 3; ++i)
             if (q.in[i].layout != layout || q.in[i].dtype != DType::f32) return nullptr;
           return std::make_unique<K>(q);
         }});
}

}  // namespace

void add_attention_tiled(Registry& r) {
  for (auto [layout, of] :
       {std::pair{Layout::plain, LayoutClass::plain}, std::pair{Layout::nhwc, LayoutClass::nhwc}}) {
    add<Forward>(r, "attention", layout, of);
    add<Backward>(r, "attention_grad", layout, of);
  }
}

}  // namespace lockstep
