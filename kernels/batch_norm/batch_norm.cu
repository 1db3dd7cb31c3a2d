// SPDX-License-Identifier: Apache-2.0
// Batch norm on a GPU: sums by pieces that blocks hold in registers (channel_sums.h), the rest one by one.
#include "kernels/gpu/device_code.h"

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/gpu/channel_sums.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;
constexpr int kMergeThreads = 128;
constexpr int kHeldNumbers = 8;  // by a thread that reads them once and needs them twice
constexpr int kSummedNumbers =
    12;                        // by one that doesn't hold them, for each load of its channels' coefficients
constexpr int kRowsHeld = 16;  // by a thread that walks over rows

// part [3, C]. A block a channel.
__global__ void __launch_bounds__(kMergeThreads)
    merge_pieces(const double* parts, float* part, unsigned channels, unsigned pieces, unsigned piece_numbers,
                 unsigned numbers) {
  const unsigned c = blockIdx.x;
  const MeanAndM2 m =
      merge_moments<kMergeThreads>({parts + 2 * c, channels, pieces, 1, piece_numbers, numbers});
  if (threadIdx.x != 0) return;
  part[c] = static_cast<float>(numbers);
  part[channels + c] = static_cast<float>(m.mean);
  part[2 * channels + c] = static_cast<float>(m.m2);
}

// Chan's formula in rank order, in double.
__global__ void merge_ranks(const float* parts, float* stats, int ranks, unsigned channels, float eps) {
  const unsigned c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= channels) return;
  double count = 0, mean = 0, m2 = 0;
  for (int r = 0; r < ranks; ++r) {
    const float* part = parts + int64_t{r} * 3 * channels + c;
    const double n = double{part[0]};
    if (n == 0) continue;
    const double delta = double{part[channels]} - mean, total = count + n;
    mean += delta * (n / total);
    m2 += double{part[2 * channels]} + delta * delta * (count * (n / total));
    count = total;
  }
  const double variance = count > 0 ? m2 / count : 0;
  stats[c] = static_cast<float>(count);
  stats[channels + c] = static_cast<float>(mean);
  stats[2 * channels + c] = static_cast<float>(variance);
  stats[3 * channels + c] = static_cast<float>(1 / sqrt(variance + double{eps}));
}

__global__ void update_running(const float* stats, const float* mean, const float* var, float* to_mean,
                               float* to_var, unsigned channels, float momentum) {
  const unsigned c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= channels) return;
  const double count = double{stats[c]}, biased = double{stats[2 * channels + c]},
               keep = 1 - double{momentum};
  to_mean[c] =
      count > 0 ? static_cast<float>(keep * double{mean[c]} + double{momentum} * double{stats[channels + c]})
                : mean[c];
  to_var[c] =
      count > 1
          ? static_cast<float>(keep * double{var[c]} + double{momentum} * (biased * (count / (count - 1))))
          : var[c];
}

__global__ void affine_grad(const float* sums, float* dgamma, float* dbeta, unsigned channels) {
  const unsigned c = blockIdx.x * kThreads + threadIdx.x;
  if (c < channels) dbeta[c] = sums[c], dgamma[c] = sums[channels + c];
}

// What apply() knows of a channel. `spread`: 1/sqrt(variance + eps), or the variance where kEvaluate.
struct Coefficients {
  const float *mean, *spread, *gamma, *beta;
  float eps;
};
// The same bits wherever z is made, or relu's gradient would not fit.
__device__ __forceinline__ float normalized(float xhat, float gamma, float beta) {
  return fmaf(xhat, gamma, beta);
}
template <bool kEvaluate>
__device__ __forceinline__ float applied(float x, float mean, float spread, float scale, float shift,
                                         float eps) {
  const float invstd = kEvaluate ? rsqrtf(spread + eps) : spread;
  return normalized((x - mean) * invstd, scale, shift);
}

// What comes after the norm: `r` is added, unless it is null, then relu. A NaN stays one.
template <class T>
struct Follows {
  const T* r;
  bool relu;
  template <int kWidth>
  __device__ __forceinline__ void store(T* y, int64_t at, float (&z)[kWidth]) const {
    if (r) {
      float add[kWidth];
      load_floats(add, r + at);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) z[k] += add[k];
    }
    if (relu)
#pragma unroll
      for (int k = 0; k < kWidth; ++k) z[k] = z[k] < 0 ? 0 : z[k];
    store_floats(y + at, z);
  }
};

// How a gradient gets back to the norm's output (channel_sums.h): through relu, or not at all changed.
struct ThroughRelu {
  const float *gamma, *beta;
  struct Channel {
    float gamma, beta;
    __device__ __forceinline__ float operator()(float dy, float xhat) const {
      return normalized(xhat, gamma, beta) > 0 ? dy : 0;
    }
  };
  __device__ __forceinline__ Channel of(unsigned c) const { return {gamma[c], beta[c]}; }
  template <int kWidth>
  __device__ __forceinline__ void load(Channel (&channel)[kWidth], unsigned c) const {
    float g[kWidth], b[kWidth];
    load_row(g, gamma + c), load_row(b, beta + c);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) channel[k] = {g[k], b[k]};
  }
};

// Plain tensors: kWidth numbers a thread, all of one channel.
template <class T, int kWidth, bool kEvaluate>
__global__ void apply_numbers(Numbers g, const T* x, Coefficients of, Follows<T> follows, T* y,
                              unsigned vectors) {
  const unsigned v = blockIdx.x * kThreads + threadIdx.x;
  if (v >= vectors) return;
  unsigned n = 0, c = 0;
  g.find<kWidth>(v, n, c);
  const float mean = of.mean[c], spread = of.spread[c], scale = of.gamma[c], shift = of.beta[c];
  float f[kWidth];
  load_floats(f, x + int64_t{v} * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) f[k] = applied<kEvaluate>(f[k], mean, spread, scale, shift, of.eps);
  follows.store(y, int64_t{v} * kWidth, f);
}

// Channels last: a thread keeps its channels' coefficients for all its rows.
template <class T, int kWidth, bool kEvaluate>
__global__ void __launch_bounds__(kThreads)
    apply_rows(Columns g, const T* x, Coefficients of, Follows<T> follows, T* y, unsigned pieces) {
  const ColumnsPiece<kWidth, kThreads, kRowsHeld> p(g, pieces);
  if (p.held == 0) return;
  float mean[kWidth], spread[kWidth], scale[kWidth], shift[kWidth];
  load_row(mean, of.mean + p.column), load_row(spread, of.spread + p.column);
  load_row(scale, of.gamma + p.column), load_row(shift, of.beta + p.column);
#pragma unroll 4
  for (int i = 0; i < p.held; ++i) {
    float f[kWidth];
    load_floats(f, x + p.at(g, i));
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      f[k] = applied<kEvaluate>(f[k], mean[k], spread[k], scale[k], shift[k], of.eps);
    follows.store(y, p.at(g, i), f);
  }
}

struct GradCoefficients {
  const float *mean, *invstd, *gamma, *sum, *sum_xhat,
      *count;  // of count the first: all channels have the same
};
template <class Channel>
__device__ __forceinline__ float input_gradient(float x, float dy, const Channel& back, float mean,
                                                float invstd, float scale, float sum, float sum_xhat,
                                                float share) {
  const float xhat = (x - mean) * invstd;
  return scale * invstd * (back(dy, xhat) - sum * share - xhat * (sum_xhat * share));
}

template <class T, int kWidth, class Back>
__global__ void input_grad_numbers(Numbers g, const T* x, const T* dy, Back back, GradCoefficients of, T* dx,
                                   unsigned vectors) {
  const unsigned v = blockIdx.x * kThreads + threadIdx.x;
  if (v >= vectors) return;
  unsigned n = 0, c = 0;
  g.find<kWidth>(v, n, c);
  const float mean = of.mean[c], invstd = of.invstd[c], scale = of.gamma[c], sum = of.sum[c],
              sum_xhat = of.sum_xhat[c], share = 1.0f / of.count[0];
  const auto channel = back.of(c);
  float f[kWidth], d[kWidth];
  load_floats(f, x + int64_t{v} * kWidth);
  load_floats(d, dy + int64_t{v} * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k)
    d[k] = input_gradient(f[k], d[k], channel, mean, invstd, scale, sum, sum_xhat, share);
  store_floats(dx + int64_t{v} * kWidth, d);
}

template <class T, int kWidth, class Back>
__global__ void __launch_bounds__(kThreads) input_grad_rows(Columns g, const T* x, const T* dy, Back back,
                                                            GradCoefficients of, T* dx, unsigned pieces) {
  const ColumnsPiece<kWidth, kThreads, kRowsHeld> p(g, pieces);
  if (p.held == 0) return;
  float mean[kWidth], invstd[kWidth], scale[kWidth], sum[kWidth], sum_xhat[kWidth];
  load_row(mean, of.mean + p.column), load_row(invstd, of.invstd + p.column);
  load_row(scale, of.gamma + p.column);
  load_row(sum, of.sum + p.column), load_row(sum_xhat, of.sum_xhat + p.column);
  typename Back::Channel channel[kWidth];
  back.load(channel, p.column);
  const float share = 1.0f / of.count[0];
#pragma unroll 4
  for (int i = 0; i < p.held; ++i) {
    float f[kWidth], d[kWidth];
    load_floats(f, x + p.at(g, i));
    load_floats(d, dy + p.at(g, i));
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      d[k] = input_gradient(f[k], d[k], channel[k], mean[k], invstd[k], scale[k], sum[k], sum_xhat[k], share);
    store_floats(dx + p.at(g, i), d);
  }
}

// What all kernels know of their tensor.
template <class T>
struct Geometry {
  int64_t n, c, hw;
  bool columns, wide;

  explicit Geometry(const TensorSpec& x)
      : n(x.shape[0]),
        c(x.shape[1]),
        hw(x.shape.elements_from(2)),
        columns(x.layout == Layout::nhwc || hw == 1),
        wide((columns ? c : hw) % kVector<T> == 0) {}
  int width() const { return wide ? kVector<T> : 1; }
  int64_t numbers() const { return n * hw; }  // of a channel
  // `held`: numbers of a channel in a thread.
  unsigned piece(int held) const {
    return columns ? piece_of_rows(width(), kThreads, held) : piece_of_run(width(), kThreads, held);
  }
  unsigned pieces(int held) const { return blocks(numbers(), piece(held)); }
  unsigned grid(int held) const {
    return pieces(held) * (columns ? blocks(c, wide ? 8 * kVector<T> : 32) : static_cast<unsigned>(c));
  }
  Runs runs() const { return {c * hw, unsigned(n), unsigned(hw), unsigned(c)}; }
  Columns matrix() const { return {1, unsigned(numbers()), unsigned(c)}; }

  // rows(width, matrix, pieces, grid) where channels come last; numbers(width, g, first number, vectors)
  // else.
  template <class R, class F>
  void number_by_number(R rows, F in_runs) const {
    with_width<T>(wide, [&](auto width) {
      if (columns) {
        const unsigned row_pieces = blocks(numbers(), piece_of_rows(width, kThreads, kRowsHeld));
        rows(width, matrix(), row_pieces, row_pieces * blocks(c, kColumns<width>));
      } else {
        in_parts(n, c * hw, [&](int64_t first, int64_t samples) {
          in_runs(width, Numbers{unsigned(c), unsigned(hw)}, first * c * hw,
                  static_cast<unsigned>(samples * c * hw / width));
        });
      }
    });
  }
};

template <class T>
class Stats final : public Kernel {
 public:
  explicit Stats(const KernelRequest& r) : g_(r.in[0]) {}
  int64_t workspace_bytes() const override {
    return g_.pieces(kHeldNumbers) * g_.c * 2 * static_cast<int64_t>(sizeof(double));
  }
  void run(const KernelArgs& args) override {
    auto* parts = static_cast<double*>(args.workspace);
    const T* x = args.in[0].as<T>();
    with_width<T>(g_.wide, [&](auto width) {
      if (g_.columns)
        launch(column_moments<T, width, kThreads, kHeldNumbers>, g_.grid(kHeldNumbers), kThreads, 0,
               args.stream, g_.matrix(), x, parts, g_.pieces(kHeldNumbers));
      else
        launch(run_moments<T, width, kThreads, kHeldNumbers>, g_.grid(kHeldNumbers), kThreads, 0, args.stream,
               g_.runs(), x, parts);
    });
    launch(merge_pieces, static_cast<unsigned>(g_.c), kMergeThreads, 0, args.stream, parts,
           args.out[0].as<float>(), g_.c, g_.pieces(kHeldNumbers), g_.piece(kHeldNumbers), g_.numbers());
  }

 private:
  Geometry<T> g_;
};

bool relu_follows(const BatchNormParams& p) { return p.activation == Activation::relu; }

template <class T>
class GradSums final : public Kernel {
 public:
  explicit GradSums(const KernelRequest& r)
      : g_(r.in[0]), relu_(relu_follows(r.params.as<BatchNormParams>())) {}
  int64_t workspace_bytes() const override {
    return g_.pieces(kSummedNumbers) * g_.c * 2 * static_cast<int64_t>(sizeof(float));
  }
  void run(const KernelArgs& args) override {
    relu_ ? run(args, ThroughRelu{args.in[3].as<float>(), args.in[4].as<float>()}) : run(args, Straight{});
  }

 private:
  template <class Back>
  void run(const KernelArgs& args, Back back) {
    auto* parts = static_cast<float*>(args.workspace);
    const T *x = args.in[0].as<T>(), *dy = args.in[1].as<T>();
    const float* s = args.in[2].as<float>();
    const Statistics stats{s + g_.c, s + 3 * g_.c, 0, 1};
    float* sums = args.out[0].as<float>();
    with_width<T>(g_.wide, [&](auto width) {
      if (g_.columns)
        launch(column_grad_sums<T, width, kThreads, kSummedNumbers, Back>, g_.grid(kSummedNumbers), kThreads,
               0, args.stream, g_.matrix(), x, dy, stats, back, parts, g_.pieces(kSummedNumbers));
      else
        launch(run_grad_sums<T, width, kThreads, kSummedNumbers, Back>, g_.grid(kSummedNumbers), kThreads, 0,
               args.stream, g_.runs(), x, dy, stats, back, g_.c, parts);
    });
    sum_parts(parts, sums, sums + g_.c, g_.pieces(kSummedNumbers), g_.c, args.stream);
  }

  Geometry<T> g_;
  bool relu_;
};

template <class T, bool kEvaluate>
void run_apply(const BatchNormParams& p, const KernelArgs& args) {
  const Geometry<T> g(args.in[0].spec);
  const float* s = args.in[1].as<float>();
  const size_t affine = kEvaluate ? 3 : 2;
  const Coefficients of{kEvaluate ? s : s + g.c, kEvaluate ? args.in[2].as<float>() : s + 3 * g.c,
                        args.in[affine].as<float>(), args.in[affine + 1].as<float>(), p.eps};
  const size_t residual = affine + 2;
  const Follows<T> follows{args.in.size() > residual ? args.in[residual].as<T>() : nullptr, relu_follows(p)};
  const T* x = args.in[0].as<T>();
  T* y = args.out[0].as<T>();
  g.number_by_number(
      [&](auto width, const Columns& matrix, unsigned pieces, unsigned grid) {
        launch(apply_rows<T, width, kEvaluate>, grid, kThreads, 0, args.stream, matrix, x, of, follows, y,
               pieces);
      },
      [&](auto width, const Numbers& numbers, int64_t from, unsigned vectors) {
        const Follows<T> here{follows.r ? follows.r + from : nullptr, follows.relu};
        launch(apply_numbers<T, width, kEvaluate>, blocks(vectors, kThreads), kThreads, 0, args.stream,
               numbers, x + from, of, here, y + from, vectors);
      });
}

template <class T, class Back>
void run_input_grad(const KernelArgs& args, Back back) {
  const Geometry<T> g(args.in[0].spec);
  const float *stats = args.in[2].as<float>(), *sums = args.in[4].as<float>();
  const GradCoefficients of{stats + g.c, stats + 3 * g.c, args.in[3].as<float>(), sums, sums + g.c, stats};
  const T *x = args.in[0].as<T>(), *dy = args.in[1].as<T>();
  T* dx = args.out[0].as<T>();
  g.number_by_number(
      [&](auto width, const Columns& matrix, unsigned pieces, unsigned grid) {
        launch(input_grad_rows<T, width, Back>, grid, kThreads, 0, args.stream, matrix, x, dy, back, of, dx,
               pieces);
      },
      [&](auto width, const Numbers& numbers, int64_t from, unsigned vectors) {
        launch(input_grad_numbers<T, width, Back>, blocks(vectors, kThreads), kThreads, 0, args.stream,
               numbers, x + from, dy + from, back, of, dx + from, vectors);
      });
}
template <class T>
void run_input_grad(const BatchNormParams& p, const KernelArgs& args) {
  if (relu_follows(p))
    run_input_grad<T>(args, ThroughRelu{args.in[3].as<float>(), args.in[5].as<float>()});
  else
    run_input_grad<T>(args, Straight{});
}

// Statistics are f32 whatever the activations are.
void run_merge(const BatchNormParams& p, const KernelArgs& args) {
  const View& parts = args.in[0];
  launch(merge_ranks, blocks(parts.dim(2), kThreads), kThreads, 0, args.stream, parts.as<float>(),
         args.out[0].as<float>(), parts.dim(0), parts.dim(2), p.eps);
}
void run_running(const BatchNormParams& p, const KernelArgs& args) {
  const int64_t channels = args.in[0].dim(1);
  launch(update_running, blocks(channels, kThreads), kThreads, 0, args.stream, args.in[0].as<float>(),
         args.in[1].as<float>(), args.in[2].as<float>(), args.out[0].as<float>(), args.out[1].as<float>(),
         channels, p.momentum);
}
void run_affine_grad(const BatchNormParams&, const KernelArgs& args) {
  const int64_t channels = args.in[0].dim(1);
  launch(affine_grad, blocks(channels, kThreads), kThreads, 0, args.stream, args.in[0].as<float>(),
         args.out[0].as<float>(), args.out[1].as<float>(), channels);
}

// `in`, `out`: how many first inputs and outputs are activations. One more input may be added (Follows) where
// there are more than `all`.
constexpr size_t kAll = 6;  // inputs of none that has something added
template <class T>
bool served(KernelRequest q, size_t in, size_t out, size_t all) {
  const Activation a = q.params.as<BatchNormParams>().activation;
  if ((a != Activation::none && a != Activation::relu) || !one_gpu_layout(q)) return false;
  if (q.in.size() > all) {
    if (q.in[all].dtype != dtype_of<T>) return false;
    q.in = q.in.first(all);
  }
  return norm_types<T>(q, in, out);
}

template <class T>
void add(Registry& r, Device device) {
  const auto add_one = [&](const char* op, const char* kernel, auto make, bool shard, size_t in, size_t out,
                           size_t all = kAll) {
    r.add({.op = op,
           .name = kernel,
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [=](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return served<T>(q, in, out, all) ? make(q) : nullptr;
           }});
  };
  add_one(
      "batch_norm_stats", "pieces", [](const KernelRequest& q) { return std::make_unique<Stats<T>>(q); },
      false, 1, 0);
  add_one(
      "batch_norm_grad_sums", "pieces",
      [](const KernelRequest& q) { return std::make_unique<GradSums<T>>(q); }, false, 2, 0);
  add_one("batch_norm_apply", "direct", stateless<BatchNormParams>(run_apply<T, false>), true, 1, 1, 4);
  add_one("batch_norm_eval", "direct", stateless<BatchNormParams>(run_apply<T, true>), true, 1, 1, 5);
  add_one("batch_norm_input_grad", "direct", stateless<BatchNormParams>(run_input_grad<T>), true, 2, 1);
  if (dtype_of<T> == DType::f32) {  // of statistics alone
    add_one("batch_norm_merge", "direct", stateless<BatchNormParams>(run_merge), false, 0, 0);
    add_one("batch_norm_running", "direct", stateless<BatchNormParams>(run_running), true, 0, 0);
    add_one("batch_norm_affine_grad", "direct", stateless<BatchNormParams>(run_affine_grad), true, 0, 0);
  }
}

}  // namespace

void register_batch_norm(Registry& r, Device device) {
  add<float>(r, device);
  add<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
