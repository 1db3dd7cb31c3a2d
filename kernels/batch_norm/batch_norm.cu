// Batch norm on a GPU: sums by pieces that blocks hold in registers (channel_sums.h), the rest one by one.
#include "kernels/core/gpu/device_code.h"

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/core/gpu/channel_sums.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256, kHeldNumbers = 8;

// part [3, C]. A warp a channel.
__global__ void merge_pieces(const double* parts, float* part, unsigned channels, unsigned pieces,
                             unsigned piece_numbers, unsigned numbers) {
  const unsigned c = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (c >= channels) return;
  const MeanAndM2 m = merge_moments({parts + 2 * c, channels, pieces, 1, piece_numbers, numbers});
  if (threadIdx.x % 32 != 0) return;
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
  const double unbiased = count > 1 ? biased * (count / (count - 1)) : biased;
  to_mean[c] = static_cast<float>(keep * double{mean[c]} + double{momentum} * double{stats[channels + c]});
  to_var[c] = static_cast<float>(keep * double{var[c]} + double{momentum} * unbiased);
}

__global__ void affine_grad(const float* sums, float* dgamma, float* dbeta, unsigned channels) {
  const unsigned c = blockIdx.x * kThreads + threadIdx.x;
  if (c < channels) dbeta[c] = sums[c], dgamma[c] = sums[channels + c];
}

// The coefficients of kWidth numbers from channel c on; one channel's in plain.
template <int kWidth>
__device__ __forceinline__ void coefficients(float (&f)[kWidth], const float* of, unsigned c, bool columns) {
  if (columns) {
    load_row(f, of + c);
  } else {
    const float one = of[c];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) f[k] = one;
  }
}

// `spread`: 1/sqrt(variance + eps), or the variance where kEvaluate.
template <class T, int kWidth, bool kEvaluate>
__global__ void apply(Numbers g, const T* x, const float* mean, const float* spread, const float* gamma,
                      const float* beta, T* y, unsigned vectors, float eps) {
  const unsigned v = blockIdx.x * kThreads + threadIdx.x;
  if (v >= vectors) return;
  unsigned n = 0, c = 0;
  g.find<kWidth>(v, n, c);
  float f[kWidth], m[kWidth], s[kWidth], scale[kWidth], shift[kWidth];
  load_floats(f, x + int64_t{v} * kWidth);
  coefficients(m, mean, c, g.columns), coefficients(s, spread, c, g.columns);
  coefficients(scale, gamma, c, g.columns), coefficients(shift, beta, c, g.columns);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const float invstd = kEvaluate ? rsqrtf(s[k] + eps) : s[k];
    f[k] = fmaf((f[k] - m[k]) * invstd, scale[k], shift[k]);
  }
  store_floats(y + int64_t{v} * kWidth, f);
}

template <class T, int kWidth>
__global__ void input_grad(Numbers g, const T* x, const T* dy, const float* stats, const float* gamma,
                           const float* sums, T* dx, unsigned vectors) {
  const unsigned v = blockIdx.x * kThreads + threadIdx.x;
  if (v >= vectors) return;
  unsigned n = 0, c = 0;
  g.find<kWidth>(v, n, c);
  float f[kWidth], d[kWidth], mean[kWidth], invstd[kWidth], scale[kWidth], sum[kWidth], sum_xhat[kWidth];
  load_floats(f, x + int64_t{v} * kWidth);
  load_floats(d, dy + int64_t{v} * kWidth);
  coefficients(mean, stats + g.channels, c, g.columns),
      coefficients(invstd, stats + 3 * g.channels, c, g.columns);
  coefficients(scale, gamma, c, g.columns);
  coefficients(sum, sums, c, g.columns), coefficients(sum_xhat, sums + g.channels, c, g.columns);
  const float share = 1.0f / stats[0];  // every channel has the same count
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const float xhat = (f[k] - mean[k]) * invstd[k];
    d[k] = scale[k] * invstd[k] * (d[k] - sum[k] * share - xhat * (sum_xhat[k] * share));
  }
  store_floats(dx + int64_t{v} * kWidth, d);
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
  unsigned piece() const {
    return columns ? piece_of_rows(width(), kThreads, kHeldNumbers)
                   : piece_of_run(width(), kThreads, kHeldNumbers);
  }
  unsigned pieces() const { return blocks(numbers(), piece()); }
  unsigned grid() const {
    return pieces() * (columns ? blocks(c, wide ? 8 * kVector<T> : 32) : static_cast<unsigned>(c));
  }
  Runs runs() const { return {c * hw, unsigned(n), unsigned(hw), unsigned(c)}; }
  Columns matrix() const { return {1, unsigned(numbers()), unsigned(c)}; }
  Numbers one_by_one() const { return {unsigned(c), unsigned(hw), columns}; }
};

template <class T>
class Stats final : public Kernel {
 public:
  explicit Stats(const KernelRequest& r) : g_(r.in[0]) {}
  int64_t workspace_bytes() const override {
    return g_.pieces() * g_.c * 2 * static_cast<int64_t>(sizeof(double));
  }
  void run(const KernelArgs& args) override {
    auto* parts = static_cast<double*>(args.workspace);
    const T* x = args.in[0].as<T>();
    with_width<T>(g_.wide, [&](auto width) {
      if (g_.columns)
        launch(column_moments<T, width, kThreads, kHeldNumbers>, g_.grid(), kThreads, 0, args.stream,
               g_.matrix(), x, parts, g_.pieces());
      else
        launch(run_moments<T, width, kThreads, kHeldNumbers>, g_.grid(), kThreads, 0, args.stream, g_.runs(),
               x, parts);
    });
    launch(merge_pieces, blocks(g_.c, kThreads / 32), kThreads, 0, args.stream, parts,
           args.out[0].as<float>(), g_.c, g_.pieces(), g_.piece(), g_.numbers());
  }

 private:
  Geometry<T> g_;
};

template <class T>
class GradSums final : public Kernel {
 public:
  explicit GradSums(const KernelRequest& r) : g_(r.in[0]) {}
  int64_t workspace_bytes() const override {
    return g_.pieces() * g_.c * 2 * static_cast<int64_t>(sizeof(float));
  }
  void run(const KernelArgs& args) override {
    auto* parts = static_cast<float*>(args.workspace);
    const T *x = args.in[0].as<T>(), *dy = args.in[1].as<T>();
    const float* s = args.in[2].as<float>();
    const Statistics stats{s + g_.c, s + 3 * g_.c, 0, 1};
    float* sums = args.out[0].as<float>();
    with_width<T>(g_.wide, [&](auto width) {
      if (g_.columns)
        launch(column_grad_sums<T, width, kThreads, kHeldNumbers, Straight>, g_.grid(), kThreads, 0,
               args.stream, g_.matrix(), x, dy, stats, Straight{}, parts, g_.pieces());
      else
        launch(run_grad_sums<T, width, kThreads, kHeldNumbers, Straight>, g_.grid(), kThreads, 0, args.stream,
               g_.runs(), x, dy, stats, Straight{}, g_.c, parts);
    });
    launch(sum_parts<>, blocks(g_.c, 32), 32 * kPartRows, 0, args.stream, parts, sums, sums + g_.c,
           g_.pieces(), g_.c);
  }

 private:
  Geometry<T> g_;
};

template <class T, bool kEvaluate>
void run_apply(const BatchNormParams& p, const KernelArgs& args) {
  const Geometry<T> g(args.in[0].spec);
  const float* s = args.in[1].as<float>();
  const size_t affine = kEvaluate ? 3 : 2;
  in_parts(g.n, g.c * g.hw, [&](int64_t first, int64_t samples) {
    with_width<T>(g.wide, [&](auto width) {
      const int64_t from = first * g.c * g.hw, vectors = samples * g.c * g.hw / width;
      launch(apply<T, width, kEvaluate>, blocks(vectors, kThreads), kThreads, 0, args.stream, g.one_by_one(),
             args.in[0].as<T>() + from, kEvaluate ? s : s + g.c,
             kEvaluate ? args.in[2].as<float>() : s + 3 * g.c, args.in[affine].as<float>(),
             args.in[affine + 1].as<float>(), args.out[0].as<T>() + from, vectors, p.eps);
    });
  });
}

template <class T>
void run_input_grad(const BatchNormParams&, const KernelArgs& args) {
  const Geometry<T> g(args.in[0].spec);
  in_parts(g.n, g.c * g.hw, [&](int64_t first, int64_t samples) {
    with_width<T>(g.wide, [&](auto width) {
      const int64_t from = first * g.c * g.hw, vectors = samples * g.c * g.hw / width;
      launch(input_grad<T, width>, blocks(vectors, kThreads), kThreads, 0, args.stream, g.one_by_one(),
             args.in[0].as<T>() + from, args.in[1].as<T>() + from, args.in[2].as<float>(),
             args.in[3].as<float>(), args.in[4].as<float>(), args.out[0].as<T>() + from, vectors);
    });
  });
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

template <class T>
void add(Registry& r, Device device) {
  // `in`, `out`: how many first inputs and outputs are activations.
  const auto add_one = [&](const char* op, const char* kernel, auto make, bool shard, size_t in, size_t out) {
    r.add({.op = op,
           .name = kernel,
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [=](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return norm_types<T>(q, in, out) && one_gpu_layout(q) ? make(q) : nullptr;
           }});
  };
  add_one(
      "batch_norm_stats", "pieces", [](const KernelRequest& q) { return std::make_unique<Stats<T>>(q); },
      false, 1, 0);
  add_one(
      "batch_norm_grad_sums", "pieces",
      [](const KernelRequest& q) { return std::make_unique<GradSums<T>>(q); }, false, 2, 0);
  add_one("batch_norm_apply", "direct", stateless<BatchNormParams>(run_apply<T, false>), true, 1, 1);
  add_one("batch_norm_eval", "direct", stateless<BatchNormParams>(run_apply<T, true>), true, 1, 1);
  add_one("batch_norm_input_grad", "direct", stateless<BatchNormParams>(run_input_grad<T>), true, 2, 1);
  add_one("batch_norm_merge", "direct", stateless<BatchNormParams>(run_merge), false, 0, 0);
  add_one("batch_norm_running", "direct", stateless<BatchNormParams>(run_running), true, 0, 0);
  add_one("batch_norm_affine_grad", "direct", stateless<BatchNormParams>(run_affine_grad), true, 0, 0);
}

}  // namespace

void register_batch_norm(Registry& r, Device device) {
  add<float>(r, device);
  add<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
