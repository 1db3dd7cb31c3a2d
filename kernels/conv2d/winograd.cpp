// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/winograd.h"

#include <algorithm>

#include "kernels/conv2d/bias_grad.h"
#include "kernels/conv2d/winograd_tile.h"
#include "kernels/core/parallel.h"
#include "kernels/simd/sum.h"

namespace lockstep {

namespace {

using namespace winograd;

// Up to so many tiles all transformed data stays in the shared cache, and rather the filters are transformed
// piece by piece.
constexpr int64_t kFewTiles = 64;
// Filters of many channels come from the shared cache or memory: so many tiles share each pass over them, and come from
// the shared cache themselves.
constexpr int64_t kBlockTiles = 96;
constexpr int64_t kTilesAtOnce = 8;     // a product's rows are taken in strips of about as many
constexpr int64_t kInputsAtOnce = 128;  // of filters that are transformed where they are used
constexpr int64_t kLine = 16;  // floats of a cache line: what keeps slices from falling into the same sets

int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

void multiply_slices(PanelProduct p) {
  p.slices = kSlices;
  multiply(p);
}

// kSlices matrices of the size.
struct MatrixSize {
  int64_t row = 0, slice = 0;
  MatrixSize() = default;
  MatrixSize(int64_t rows, int64_t columns) : row(round_up(columns, kPanel)), slice(rows * row + kLine) {}
  int64_t floats() const { return kSlices * slice; }
  Matrices at(float* data) const { return {data, slice, row}; }
};

Tiling tiling(const Shape& image, const Shape& tiled, int64_t first_y, int64_t first_x) {
  return {.h = image[2],
          .w = image[3],
          .c = image[1],
          .rows = divide_up(tiled[2], kStep),
          .columns = divide_up(tiled[3], kStep),
          .first_y = first_y,
          .first_x = first_x};
}

bool accepts(const Conv2dParams& p, const Shape& w) {
  return w[2] == 3 && w[3] == 3 && p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 &&
         p.dilation_w == 1 && p.groups == 1 && w[0] >= 16 && w[1] >= 16;
}

// y from x, for the input gradient dx from dy.
class Convolution final : public Kernel {
 public:
  Convolution(const Shape& x, const Shape& y, int64_t first_y, int64_t first_x, Filters filters,
              bool has_bias, Activation activation, int threads)
      : x_(tiling(x, y, first_y, first_x)),
        y_(tiling(y, y, 0, 0)),
        filters_(filters),
        tiles_(x[0] * x_.rows * x_.columns),
        has_bias_(has_bias),
        activation_(activation),
        threads_(threads) {
    if (few()) {
      block_ = tiles_;
      u_ = {std::min(kInputsAtOnce, x_.c), kPanel};
    } else {
      block_ = kBlockTiles;
      u_ = {x_.c, kPanel};
    }
    v_ = {block_, x_.c};
    m_ = {block_, kPanel};
  }

  int64_t workspace_bytes() const override {
    const int64_t floats = few() ? v_.floats() + threads_ * (u_.floats() + m_.floats())
                                 : panels() * u_.floats() + threads_ * (v_.floats() + m_.floats());
    return floats * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    if (tiles_ == 0) return;
    filters_.w = args.in[1];
    few() ? run_few(args) : run_many(args);
  }

 private:
  bool few() const { return tiles_ <= kFewTiles; }
  int64_t panels() const { return divide_up(y_.c, kPanel); }
  Range panel(int64_t i) const { return {i * kPanel, std::min((i + 1) * kPanel, y_.c)}; }

  // Threads share the tiles; all filters pass by a block of them, transformed.
  void run_many(const KernelArgs& args) const {
    auto* u = static_cast<float*>(args.workspace);
    float* scratch = u + panels() * u_.floats();
    const int64_t pieces = divide_up(x_.c, kPanel);
    parallel_for(panels() * pieces, threads_, [&](int64_t i) {
      const Range inputs{i % pieces * kPanel, std::min((i % pieces + 1) * kPanel, x_.c)};
      Matrices to = u_.at(u + i / pieces * u_.floats());
      to.data += inputs.first * to.row;
      transform_filters(filters_, inputs, panel(i / pieces), to);
    });
    parallel_ranges(divide_up(tiles_, kTilesAtOnce), threads_, 1, [&](int64_t first, int64_t last) {
      const Matrices v = v_.at(scratch + thread_index() * (v_.floats() + m_.floats()));
      const Matrices m = m_.at(v.data + v_.floats());
      const int64_t end = std::min(last * kTilesAtOnce, tiles_);
      for (int64_t tile = first * kTilesAtOnce; tile < end; tile += block_) {
        const Range tiles{tile, std::min(tile + block_, end)};
        transform_data(x_, args.in[0], tiles, {0, x_.c}, v);
        for (int64_t i = 0; i < panels(); ++i) {
          multiply_slices({.a = v,
                           .b = u_.at(u + i * u_.floats()),
                           .c = m,
                           .rows = tiles.size(),
                           .depth = x_.c,
                           .next = u + (i + 1) % panels() * u_.floats(),
                           .next_floats = x_.c * kPanel});
          store(args, m, tiles, panel(i));
        }
      }
    });
  }

  // Threads share the output channels.
  void run_few(const KernelArgs& args) const {
    const Matrices v = v_.at(static_cast<float*>(args.workspace));
    float* scratch = v.data + v_.floats();
    parallel_ranges(tiles_, threads_, 1, [&](int64_t first, int64_t last) {
      Matrices to = v;
      to.data = v.at(first);
      transform_data(x_, args.in[0], {first, last}, {0, x_.c}, to);
    });
    parallel_ranges(panels(), threads_, 1, [&](int64_t first, int64_t last) {
      const Matrices u = u_.at(scratch + thread_index() * (u_.floats() + m_.floats()));
      const Matrices m = m_.at(u.data + u_.floats());
      for (int64_t i = first; i < last; ++i) {
        for (int64_t c = 0; c < x_.c; c += kInputsAtOnce) {
          const Range inputs{c, std::min(c + kInputsAtOnce, x_.c)};
          transform_filters(filters_, inputs, panel(i), u);
          Matrices a = v;
          a.data += c;
          multiply_slices({a, 1, u, m, tiles_, inputs.size(), c > 0});
        }
        store(args, m, {0, tiles_}, panel(i));
      }
    });
  }

  void store(const KernelArgs& args, Matrices m, Range tiles, Range outputs) const {
    transform_output(y_, m, tiles, outputs, has_bias_ ? args.in[2].as<float>() : nullptr, activation_,
                     args.out[0]);
  }

  Tiling x_, y_;
  Filters filters_;
  int64_t tiles_, block_ = 0;
  MatrixSize u_, v_, m_;  // filters of a panel, data and products of a block of tiles
  bool has_bias_;
  Activation activation_;
  int threads_;
};

// Threads share blocks of dw, kBlock x kBlock channels, whose sums stay in the cache while tiles pass by;
// where there are few blocks, the tiles are cut into parts too, by shape alone.
class WinogradWeightGradient final : public Kernel {
 public:
  explicit WinogradWeightGradient(const KernelRequest& r)
      : dw_(r.out[0].shape), dy_(r.in[1].shape), bias_(r.out.size() > 1), threads_(r.threads) {
    const auto& p = r.params.as<Conv2dParams>();
    x_tiles_ = tiling(r.in[0].shape, dy_, -p.pad_top, -p.pad_left);
    dy_tiles_ = tiling(dy_, dy_, 0, 0);
    tiles_ = dy_[0] * x_tiles_.rows * x_tiles_.columns;
    blocks_o_ = divide_up(dw_[0], kBlock);
    blocks_ = blocks_o_ * divide_up(dw_[1], kBlock);
    parts_ = std::clamp<int64_t>(tiles_ / kTilesOfPart, 1, divide_up(kJobs, blocks_));
    const int64_t inputs = std::min(kBlock, dw_[1]), outputs = std::min(kBlock, dw_[0]);
    v_ = {kTilesTogether, inputs}, z_ = {kTilesTogether, outputs}, sums_ = {inputs, kPanel};
  }

  int64_t workspace_bytes() const override {
    return (threads_ * thread_floats() + (parts_ > 1 ? parts_ * part_floats() : 0)) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    auto *dw = args.out[0].as<float>(), *scratch = static_cast<float*>(args.workspace);
    float* parts = scratch + threads_ * thread_floats();
    parallel_ranges(blocks_ * parts_, threads_, 1, [&](int64_t first, int64_t last) {
      float* mine = scratch + thread_index() * thread_floats();
      for (int64_t job = first; job < last; ++job) {
        const int64_t part = job % parts_;
        compute(args, job / parts_, {tiles_ * part / parts_, tiles_ * (part + 1) / parts_}, mine,
                parts_ > 1 ? parts + part * part_floats() : dw);
      }
    });
    if (parts_ > 1) sum_parts(parts, part_floats(), parts_, dw_.elements(), dw, threads_);
    if (bias_) bias_grad_nhwc(args.in[1], dy_[0] * dy_[2], dy_[3], dy_[1], args.out[1].as<float>(), threads_);
  }

 private:
  static constexpr int64_t kBlock = 64, kTilesTogether = 24;
  static constexpr int64_t kJobs = 16;          // enough to share evenly
  static constexpr int64_t kTilesOfPart = 128;  // at least: what makes the sums' own transform cheap

  int64_t thread_floats() const { return v_.floats() + z_.floats() + kBlock / kPanel * sums_.floats(); }
  int64_t part_floats() const { return round_up(dw_.elements(), kLine); }

  void compute(const KernelArgs& args, int64_t block, Range tiles, float* scratch, float* dw) const {
    const int64_t c = block / blocks_o_ * kBlock, o = block % blocks_o_ * kBlock;
    const Range inputs{c, std::min(c + kBlock, dw_[1])}, outputs{o, std::min(o + kBlock, dw_[0])};
    const Matrices v = v_.at(scratch), z = z_.at(v.data + v_.floats());
    const Matrices columns_of_v{v.data, v.slice, 1};
    float* sums = z.data + z_.floats();
    const auto for_each_panel = [&](auto f) {
      for (int64_t i = 0; i < outputs.size(); i += kPanel) f(i, sums_.at(sums + i / kPanel * sums_.floats()));
    };
    int64_t tile = tiles.first;
    do {  // once at least: without samples the sums are zero
      const Range now{tile, std::min(tile + kTilesTogether, tiles.last)};
      transform_data(x_tiles_, args.in[0], now, inputs, v);
      transform_output_grad(dy_tiles_, args.in[1], now, outputs, z);
      for_each_panel([&](int64_t column, Matrices to) {
        multiply_slices({columns_of_v,
                         v.row,
                         {z.at(0, column), z.slice, z.row},
                         to,
                         inputs.size(),
                         now.size(),
                         tile > tiles.first});
      });
      tile = now.last;
    } while (tile < tiles.last);
    for_each_panel([&](int64_t column, Matrices from) {
      const Range panel{outputs.first + column, std::min(outputs.first + column + kPanel, outputs.last)};
      transform_weight_grad(from, inputs, panel, dw_[1], dw);
    });
  }

  Shape dw_, dy_;
  bool bias_;
  int threads_;
  Tiling x_tiles_, dy_tiles_;
  int64_t tiles_ = 0, blocks_o_ = 1, blocks_ = 1, parts_ = 1;
  MatrixSize v_, z_, sums_;
};

}  // namespace

std::unique_ptr<Kernel> make_conv2d_winograd(const KernelRequest& r) {
  const auto& p = r.params.as<Conv2dParams>();
  const Shape& w = r.in[1].shape;
  if (!accepts(p, w)) return nullptr;
  const Filters filters{.input_stride = 9, .output_stride = w[1] * 9};
  return std::make_unique<Convolution>(r.in[0].shape, r.out[0].shape, -p.pad_top, -p.pad_left, filters,
                                       r.in.size() > 2, p.activation, r.threads);
}

// dx is the convolution of dy with the filters turned round, padded by what is missing to 2.
std::unique_ptr<Kernel> make_conv2d_input_grad_winograd(const KernelRequest& r) {
  const auto& p = r.params.as<Conv2dParams>();
  const Shape& w = r.in[1].shape;
  if (!accepts(p, w)) return nullptr;
  const Filters filters{.input_stride = w[1] * 9, .output_stride = 9, .rotated = true};
  return std::make_unique<Convolution>(r.in[0].shape, r.out[0].shape, p.pad_top - 2, p.pad_left - 2, filters,
                                       false, Activation::none, r.threads);
}

std::unique_ptr<Kernel> make_conv2d_weight_grad_winograd(const KernelRequest& r) {
  if (!accepts(r.params.as<Conv2dParams>(), r.out[0].shape) || r.out[0].dtype != DType::f32) return nullptr;
  return std::make_unique<WinogradWeightGradient>(r);
}

}  // namespace lockstep
