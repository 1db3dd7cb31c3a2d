// SPDX-License-Identifier: Apache-2.0
// Group norm of any size in two reads: sums by pieces (channel_sums.h), then each number once more.
#include "kernels/gpu/device_code.h"
#include "kernels/group_norm/numbers.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kPieceThreads = 256, kPieceHeld = 8;
constexpr int kRowsHeld = 16;  // by a thread of normalize_rows

// Where pieces leave what they know of sample n's channels (or groups): at piece * piece_stride + n *
// sample_stride.
struct PieceParts {
  int64_t piece_stride, sample_stride;
  unsigned pieces, piece_numbers, numbers;  // of a channel, or of a group where `width` is 1
  unsigned width;                           // parts of a group, side by side
};

// stats [N, 2 * groups]. A warp a group.
__global__ void group_statistics(PieceParts p, const double* parts, float* stats, unsigned all,
                                 unsigned groups, float eps) {
  const unsigned i = blockIdx.x * (kPieceThreads / 32) + threadIdx.x / 32;
  if (i >= all) return;
  const unsigned n = i / groups, g = i % groups;
  const MeanAndM2 m = merge_moments<32>({parts + 2 * (n * p.sample_stride + g * p.width), p.piece_stride,
                                         p.pieces, p.width, p.piece_numbers, p.numbers});
  if (threadIdx.x % 32 != 0) return;
  stats[2 * n * groups + g] = static_cast<float>(m.mean);
  const double variance = m.m2 / (double(p.numbers) * p.width);
  stats[(2 * n + 1) * groups + g] = static_cast<float>(1 / sqrt(variance + double{eps}));
}

// means[n][g]: of gamma * dy and of gamma * dy * xhat. A warp a group.
__global__ void group_means(PieceParts p, const float* parts, const float* gamma, float* means, unsigned all,
                            unsigned groups) {
  const unsigned i = blockIdx.x * (kPieceThreads / 32) + threadIdx.x / 32;
  if (i >= all) return;
  const unsigned n = i / groups, first = i % groups * p.width;
  double sum = 0, sum_xhat = 0;
  for (unsigned k = threadIdx.x % 32; k < p.pieces * p.width; k += 32) {
    const unsigned c = first + k % p.width;
    const Vector<float, 2> part =
        load_vector<2>(parts + 2 * (k / p.width * p.piece_stride + n * p.sample_stride + c));
    sum += double{gamma[c]} * double{part[0]}, sum_xhat += double{gamma[c]} * double{part[1]};
  }
  sum = warp_sum(sum), sum_xhat = warp_sum(sum_xhat);
  if (threadIdx.x % 32 != 0) return;
  const double count = double(p.numbers) * p.width;
  means[2 * i] = static_cast<float>(sum / count);
  means[2 * i + 1] = static_cast<float>(sum_xhat / count);
}

// Plain tensors: kWidth numbers a thread, all of one channel.
template <class T, int kWidth>
__global__ void normalize_numbers(Numbers g, Statistics stats, const T* x, const float* gamma,
                                  const float* beta, Follows follows, T* y, unsigned vectors) {
  const unsigned v = blockIdx.x * kPieceThreads + threadIdx.x;
  if (v >= vectors) return;
  unsigned n = 0, c = 0;
  g.find<kWidth>(v, n, c);
  const unsigned s = stats.index(n, c);
  const float mean = stats.mean[s], invstd = stats.invstd[s], scale = gamma[c], shift = beta[c];
  float f[kWidth];
  load_floats(f, x + int64_t{v} * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) f[k] = follows(fmaf((f[k] - mean) * invstd, scale, shift));
  store_floats(y + int64_t{v} * kWidth, f);
}

template <class T, int kWidth>
__global__ void normalize_numbers_grad(Numbers g, Statistics stats, const T* x, const T* dy,
                                       BackFromChannels back, const float* means, T* dx, unsigned vectors) {
  const unsigned v = blockIdx.x * kPieceThreads + threadIdx.x;
  if (v >= vectors) return;
  unsigned n = 0, c = 0;
  g.find<kWidth>(v, n, c);
  const unsigned s = stats.index(n, c);
  const float mean = stats.mean[s], invstd = stats.invstd[s];
  const BackFrom channel = back.of(c);
  const float* of = means + 2 * (n * (g.channels / stats.per_group) + c / stats.per_group);
  const float mean_dy = of[0], mean_dy_xhat = of[1];
  float f[kWidth], d[kWidth];
  load_floats(f, x + int64_t{v} * kWidth);
  load_floats(d, dy + int64_t{v} * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const float xhat = (f[k] - mean) * invstd;
    d[k] = invstd * (channel.gamma * channel(d[k], xhat) - mean_dy - xhat * mean_dy_xhat);
  }
  store_floats(dx + int64_t{v} * kWidth, d);
}

// Channels last: a thread keeps its channels' coefficients for all its rows.
template <class T, int kWidth>
__global__ void __launch_bounds__(kPieceThreads)
    normalize_rows(Columns g, Statistics stats, const T* x, const float* gamma, const float* beta,
                   Follows follows, T* y, unsigned pieces) {
  const ColumnsPiece<kWidth, kPieceThreads, kRowsHeld> p(g, pieces);
  if (p.held == 0) return;
  float mean[kWidth], invstd[kWidth], scale[kWidth], shift[kWidth];
  stats.load(mean, invstd, p.matrix, p.column);
  load_row(scale, gamma + p.column), load_row(shift, beta + p.column);
#pragma unroll 4
  for (int i = 0; i < p.held; ++i) {
    float f[kWidth];
    load_floats(f, x + p.at(g, i));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) f[k] = follows(fmaf((f[k] - mean[k]) * invstd[k], scale[k], shift[k]));
    store_floats(y + p.at(g, i), f);
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kPieceThreads)
    normalize_rows_grad(Columns g, Statistics stats, const T* x, const T* dy, BackFromChannels back,
                        const float* means, T* dx, unsigned pieces) {
  const ColumnsPiece<kWidth, kPieceThreads, kRowsHeld> p(g, pieces);
  if (p.held == 0) return;
  float mean[kWidth], invstd[kWidth], mean_dy[kWidth], mean_dy_xhat[kWidth];
  BackFrom channel[kWidth];
  stats.load(mean, invstd, p.matrix, p.column), back.load(channel, p.column);
  const unsigned groups = g.columns / stats.per_group;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const Vector<float, 2> of =
        load_vector<2>(means + 2 * (p.matrix * groups + (p.column + k) / stats.per_group));
    mean_dy[k] = of[0], mean_dy_xhat[k] = of[1];
  }
#pragma unroll 2
  for (int i = 0; i < p.held; ++i) {
    float f[kWidth], d[kWidth];
    load_floats(f, x + p.at(g, i));
    load_floats(d, dy + p.at(g, i));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float xhat = (f[k] - mean[k]) * invstd[k];
      d[k] = invstd[k] * (channel[k].gamma * channel[k](d[k], xhat) - mean_dy[k] - xhat * mean_dy_xhat[k]);
    }
    store_floats(dx + p.at(g, i), d);
  }
}

template <class T>
class Pieces : public Kernel {
 public:
  explicit Pieces(const KernelRequest& q) : g_(q.params.as<GroupNormParams>(), q.in[0]) {}

 protected:
  int64_t groups() const { return g_.n * g_.groups; }
  unsigned column_grid(unsigned pieces) const { return unsigned(g_.n) * pieces * blocks(g_.c, g_.tile()); }
  // Of columns, [n][piece][c]; of runs of `numbers` each, `sets` a sample, [piece][n][set].
  PieceParts parts(int64_t sets, int64_t numbers) const {
    if (g_.columns) {
      const unsigned piece = piece_of_rows(g_.width(), kPieceThreads, kPieceHeld),
                     pieces = blocks(g_.hw, piece);
      return {g_.c, pieces * g_.c, pieces, piece, unsigned(g_.hw), unsigned(g_.per_group())};
    }
    const unsigned piece = piece_of_run(g_.width(), run_threads(numbers), kPieceHeld);
    return {g_.n * sets, sets, blocks(numbers, piece), piece, unsigned(numbers), unsigned(sets / g_.groups)};
  }
  // Short runs have a warp each.
  int run_threads(int64_t numbers) const {
    return numbers <= 32 * kPieceHeld * g_.width() ? 32 : kPieceThreads;
  }
  template <class F>
  void with_run_threads(int64_t numbers, F f) const {
    if (run_threads(numbers) == 32)
      f(std::integral_constant<int, 32>());
    else
      f(std::integral_constant<int, kPieceThreads>());
  }
  // rows(width, pieces, grid) where channels come last; numbers(width, g, first number, vectors, first
  // sample) else.
  template <class R, class F>
  void normalize(R rows, F numbers) const {
    with_width<T>(g_.wide, [&](auto width) {
      if (g_.columns) {
        const unsigned pieces = blocks(g_.hw, piece_of_rows(width, kPieceThreads, kRowsHeld));
        rows(width, pieces, column_grid(pieces));
      } else {
        in_parts(g_.n, g_.c * g_.hw, [&](int64_t first, int64_t samples) {
          numbers(width, Numbers{unsigned(g_.c), unsigned(g_.hw)}, first * g_.c * g_.hw,
                  samples * g_.c * g_.hw / width, first);
        });
      }
    });
  }
  GroupGeometry<T> g_;
};

template <class T>
class PiecesForward final : public Pieces<T> {
 public:
  using Pieces<T>::Pieces;
  int64_t workspace_bytes() const override {
    const GroupGeometry<T>& g = this->g_;
    return p().pieces * g.n * (g.columns ? g.c : g.groups) * 2 * static_cast<int64_t>(sizeof(double));
  }
  void run(const KernelArgs& args) override {
    const GroupGeometry<T>& g = this->g_;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    const float *gamma = args.in[1].as<float>(), *beta = args.in[2].as<float>();
    float* stats = args.out[1].as<float>();
    auto* parts = static_cast<double*>(args.workspace);
    const PieceParts pieces = p();
    with_width<T>(g.wide, [&](auto width) {
      if (g.columns)
        launch(column_moments<T, width, kPieceThreads, kPieceHeld>, this->column_grid(pieces.pieces),
               kPieceThreads, 0, args.stream, g.matrices(), x, parts, pieces.pieces);
      else
        this->with_run_threads(g.group_numbers(), [&](auto threads) {
          const Runs runs{0, 1, unsigned(g.group_numbers()), unsigned(this->groups())};
          launch(run_moments<T, width, threads, kPieceHeld>, pieces.pieces * runs.sets, threads(), 0,
                 args.stream, runs, x, parts);
        });
    });
    launch(group_statistics, blocks(this->groups(), kPieceThreads / 32), kPieceThreads, 0, args.stream,
           pieces, parts, stats, this->groups(), g.groups, g.eps);
    this->normalize(
        [&](auto width, unsigned row_pieces, unsigned grid) {
          launch(normalize_rows<T, width>, grid, kPieceThreads, 0, args.stream, g.matrices(),
                 g.statistics(stats), x, gamma, beta, Follows{g.silu}, y, row_pieces);
        },
        [&](auto width, const Numbers& numbers, int64_t from, int64_t vectors, int64_t sample) {
          launch(normalize_numbers<T, width>, blocks(vectors, kPieceThreads), kPieceThreads, 0, args.stream,
                 numbers, g.statistics(stats + sample * 2 * g.groups), x + from, gamma, beta, Follows{g.silu},
                 y + from, vectors);
        });
  }

 private:
  PieceParts p() const { return this->parts(this->g_.groups, this->g_.group_numbers()); }
};

template <class T>
class PiecesBackward final : public Pieces<T> {
 public:
  using Pieces<T>::Pieces;
  int64_t workspace_bytes() const override {
    return (part_count() * this->g_.c + this->groups()) * 2 * static_cast<int64_t>(sizeof(float));
  }
  void run(const KernelArgs& args) override {
    const GroupGeometry<T>& g = this->g_;
    const T *x = args.in[0].as<T>(), *dy = args.in[1].as<T>();
    T* dx = args.out[0].as<T>();
    const BackFromChannels back{args.in[2].as<float>(), args.in[3].as<float>(), g.silu};
    const float* stats = args.in[4].as<float>();
    auto* parts = static_cast<float*>(args.workspace);
    float* means = parts + part_count() * g.c * 2;
    const PieceParts pieces = p();
    with_width<T>(g.wide, [&](auto width) {
      if (g.columns)
        launch(column_grad_sums<T, width, kPieceThreads, kPieceHeld, BackFromChannels>,
               this->column_grid(pieces.pieces), kPieceThreads, 0, args.stream, g.matrices(), x, dy,
               g.statistics(stats), back, parts, pieces.pieces);
      else
        this->with_run_threads(g.hw, [&](auto threads) {
          const Runs runs{0, 1, unsigned(g.hw), unsigned(g.n * g.c)};
          launch(run_grad_sums<T, width, threads, kPieceHeld, BackFromChannels>, pieces.pieces * runs.sets,
                 threads(), 0, args.stream, runs, x, dy, g.statistics(stats), back, g.c, parts);
        });
    });
    launch(group_means, blocks(this->groups(), kPieceThreads / 32), kPieceThreads, 0, args.stream, pieces,
           parts, back.gamma, means, this->groups(), g.groups);
    this->normalize(
        [&](auto width, unsigned row_pieces, unsigned grid) {
          launch(normalize_rows_grad<T, width>, grid, kPieceThreads, 0, args.stream, g.matrices(),
                 g.statistics(stats), x, dy, back, means, dx, row_pieces);
        },
        [&](auto width, const Numbers& numbers, int64_t from, int64_t vectors, int64_t sample) {
          launch(normalize_numbers_grad<T, width>, blocks(vectors, kPieceThreads), kPieceThreads, 0,
                 args.stream, numbers, g.statistics(stats + sample * 2 * g.groups), x + from, dy + from, back,
                 means + sample * 2 * g.groups, dx + from, vectors);
        });
    add_affine_grads(args, parts, part_count(), g.c);
  }

 private:
  PieceParts p() const { return this->parts(this->g_.c, this->g_.hw); }
  int64_t part_count() const { return int64_t{p().pieces} * this->g_.n; }
};

template <class T>
void add_pieces(Registry& r, Device device) {
  const auto add = [&](const char* op, bool shard, size_t in, auto make) {
    r.add({.op = op,
           .name = "pieces",
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [=](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return norm_types<T>(q, in, 1) && one_gpu_layout(q) ? make(q) : nullptr;
           }});
  };
  add("group_norm", true, 1, [](const KernelRequest& q) { return std::make_unique<PiecesForward<T>>(q); });
  add("group_norm_grad", false, 2,
      [](const KernelRequest& q) { return std::make_unique<PiecesBackward<T>>(q); });
}

}  // namespace

void register_group_norm_pieces(Registry& r, Device device) {
  add_pieces<float>(r, device);
  add_pieces<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
