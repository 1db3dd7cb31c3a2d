// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/lanes_winograd.h"

#include <algorithm>
#include <vector>

#include "kernels/conv2d/lanes_winograd_tile.h"
#include "kernels/core/parallel.h"

namespace lockstep {

namespace lanes_winograd {

namespace {

constexpr int64_t kFewChannels = 4;  // with fewer on one side gradients transform rows only
constexpr int64_t kFilters = 16;     // transformed at once: whole vectors
constexpr int64_t kMostParts = 8;    // of a weight gradient's sums, by shape alone
// The point (1, 1), where a tile of dy has the sum of its numbers.
constexpr int64_t kOnes = 3 * kSide + 3;

bool accepts(const Conv2dParams& p, const Shape& w) {
  return w[2] == kTaps && w[3] == kTaps && p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 &&
         p.dilation_w == 1 && p.groups == 1;
}
bool has_few(const Tiling& t) { return std::min(t.x.c, t.y.c) < kFewChannels; }

int64_t blocks_of(const Shape& s) { return divide_up(s[0], kLanes); }
int64_t row_of(int64_t numbers) { return divide_up(numbers, kFilters) * kFilters + kLine; }

Tiling tiling(const Conv2dParams& p, const Shape& x, const Shape& y) {
  return {.x = {x[1], x[2], x[3]},
          .y = {y[1], y[2], y[3]},
          .pad_top = p.pad_top,
          .pad_left = p.pad_left,
          .rows = divide_up(y[2], kStep),
          .columns = divide_up(y[3], kStep)};
}

// Where the filters of w [O, C, 5, 5] begin, in the order of a product: `results` are the channels that it makes of `terms`.
std::vector<int64_t> filter_order(int64_t results, int64_t result_step, int64_t terms, int64_t term_step) {
  std::vector<int64_t> from;
  for (int64_t g = 0; g < groups_of(results); ++g)
    for (int64_t t = 0; t < terms; ++t)
      for (int64_t r = group_begin(results, g); r < group_begin(results, g + 1); ++r)
        from.push_back(r * result_step + t * term_step);
  return from;
}

class Convolution : public Kernel {
 public:
  int64_t workspace_bytes() const final {
    return (points_ * row_ + threads_ * thread_floats_) * size_of(DType::f32);
  }

 protected:
  using Transform = decltype(&transform_filters);
  Convolution(const Tiling& t, int64_t blocks, int64_t points, Transform transform,
              std::vector<int64_t> order, int64_t thread_floats, int threads)
      : tiling_(t),
        blocks_(blocks),
        points_(points),
        transform_(transform),
        order_(std::move(order)),
        row_(row_of(static_cast<int64_t>(order_.size()))),
        thread_floats_(thread_floats),
        threads_(threads) {}

  // Filters at the points, for all threads.
  float* transformed(const KernelArgs& args) const {
    auto* u = static_cast<float*>(args.workspace);
    const std::span<const int64_t> order(order_);
    parallel_for(divide_up(static_cast<int64_t>(order.size()), kFilters), threads_, [&](int64_t i) {
      const auto first = static_cast<size_t>(i * kFilters);
      transform_(order.subspan(first, std::min<size_t>(kFilters, order.size() - first)),
                 args.in[1].as<float>(), u + first, row_);
    });
    return u;
  }
  float* scratch(float* u) const { return u + points_ * row_ + thread_index() * thread_floats_; }

  Tiling tiling_;
  int64_t blocks_, points_;
  Transform transform_;
  std::vector<int64_t> order_;
  int64_t row_, thread_floats_;
  int threads_;
};

class Forward final : public Convolution {
 public:
  Forward(const KernelRequest& r, const Tiling& t)
      : Convolution(t, blocks_of(r.in[0].shape), kSide, transform_filter_rows,
                    filter_order(t.y.c, t.x.c * kTaps * kTaps, t.x.c * kTaps, kTaps), forward_strip_floats(t),
                    r.threads),
        has_bias_(r.in.size() > 2),
        activation_(r.params.as<Conv2dParams>().activation) {}

  void run(const KernelArgs& args) override {
    float* u = transformed(args);
    const float* bias = has_bias_ ? args.in[2].as<float>() : nullptr;
    parallel_for(blocks_ * strips(tiling_), threads_, [&](int64_t strip) {
      forward_strip(tiling_, args.in[0].as<float>(), u, row_, bias, activation_, args.out[0].as<float>(),
                    strip, scratch(u));
    });
  }

 private:
  bool has_bias_;
  Activation activation_;
};

// Tiles of dx overlap: a block's are added up by one thread, or by several which share its channels.
class InputGradient final : public Convolution {
 public:
  InputGradient(const KernelRequest& r, const Tiling& t)
      : Convolution(t, blocks_of(r.in[0].shape), kPoints, transform_filters,
                    filter_order(t.x.c, kTaps * kTaps, t.y.c, t.x.c * kTaps * kTaps), input_grad_floats(t),
                    r.threads) {}

  void run(const KernelArgs& args) override {
    if (blocks_ == 0) return;
    float* u = transformed(args);
    const int64_t groups = groups_of(tiling_.x.c), parts = std::min(groups, divide_up(threads_, blocks_));
    parallel_for(blocks_ * parts, threads_, [&](int64_t job) {
      const int64_t part = job % parts;
      input_grad(tiling_, args.in[0].as<float>(), u, row_, args.out[0].as<float>(), job / parts,
                 groups * part / parts, groups * (part + 1) / parts, scratch(u));
    });
  }
};

// Threads share the channels of some tiles, then the points of their products.
class WeightGradient final : public Kernel {
 public:
  WeightGradient(const KernelRequest& r, const Tiling& t)
      : tiling_(t),
        tiles_(blocks_of(r.in[0].shape) * t.tiles()),
        row_(row_of(t.x.c * t.y.c)),
        threads_(r.threads) {}

  int64_t workspace_bytes() const override {
    return (kPoints * row_ + row_of(tiling_.y.c)) * static_cast<int64_t>(sizeof(double)) +
           kPoints * (matrix(tiling_.x.c) + matrix(tiling_.y.c)) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    auto* dw = args.out[0].as<float>();
    float* db = args.out.size() > 1 ? args.out[1].as<float>() : nullptr;
    const int64_t inputs = tiling_.x.c, outputs = tiling_.y.c, filters = inputs * outputs;
    if (tiles_ == 0) {
      std::fill_n(dw, filters * kTaps * kTaps, 0.0f);
      if (db) std::fill_n(db, outputs, 0.0f);
      return;
    }
    auto *sums = static_cast<double*>(args.workspace), *bias = sums + kPoints * row_;
    auto *x = reinterpret_cast<float*>(bias + row_of(outputs)), *dy = x + kPoints * matrix(inputs);
    for (int64_t tile = 0; tile < tiles_; tile += kTiles) {
      const TileRange now{tile, std::min(kTiles, tiles_ - tile)};
      const int64_t channel = now.count * kLanes;
      parallel_for(inputs + outputs, threads_, [&](int64_t i) {
        if (i < inputs)
          transform_data(tiling_, args.in[0].as<float>(), now, i, x + i * channel, matrix(inputs));
        else
          transform_gradient(tiling_, args.in[1].as<float>(), now, i - inputs, dy + (i - inputs) * channel,
                             matrix(outputs));
      });
      parallel_for(kPoints, threads_, [&](int64_t p) {
        const float* gradients = dy + p * matrix(outputs);
        multiply_tiles(outputs, inputs, now.count, gradients, x + p * matrix(inputs), sums + p * row_,
                       tile > 0);
        if (!db || p != kOnes) return;
        for (int64_t o = 0; o < outputs; ++o)
          bias[o] = (tile > 0 ? bias[o] : 0) +
                    static_cast<double>(sum_of_tiles(gradients + o * channel, now.count));
      });
    }
    parallel_for(divide_up(filters, kFilters), threads_, [&](int64_t i) {
      transform_back(sums + i * kFilters, row_, std::min(kFilters, filters - i * kFilters),
                     dw + i * kFilters * kTaps * kTaps);
    });
    if (db) std::transform(bias, bias + outputs, db, [](double sum) { return static_cast<float>(sum); });
  }

 private:
  static int64_t matrix(int64_t channels) { return channels * kTiles * kLanes + kLine; }

  Tiling tiling_;
  int64_t tiles_, row_;
  int threads_;
};

// Threads share the strips of parts.
class WeightGradientOfRows final : public Kernel {
 public:
  WeightGradientOfRows(const KernelRequest& r, const Tiling& t)
      : tiling_(t),
        strips_(blocks_of(r.in[0].shape) * strips(t)),
        parts_(std::min(strips_, kMostParts)),
        part_floats_(strip_sums(t) * kLanes),
        thread_floats_(weight_grad_strip_floats(t)),
        threads_(r.threads) {}

  int64_t workspace_bytes() const override {
    return (parts_ * part_floats_ + threads_ * thread_floats_) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    auto *dw = args.out[0].as<float>(), *sums = static_cast<float*>(args.workspace);
    float* db = args.out.size() > 1 ? args.out[1].as<float>() : nullptr;
    if (strips_ == 0) {
      std::fill_n(dw, args.out[0].spec.shape.elements(), 0.0f);
      if (db) std::fill_n(db, tiling_.y.c, 0.0f);
      return;
    }
    float* scratch = sums + parts_ * part_floats_;
    parallel_for(parts_, threads_, [&](int64_t part) {
      weight_grad_strips(tiling_, args.in[0].as<float>(), args.in[1].as<float>(), strips_ * part / parts_,
                         strips_ * (part + 1) / parts_, sums + part * part_floats_,
                         scratch + thread_index() * thread_floats_);
    });
    finish_strips(tiling_, sums, parts_, dw, db, scratch);
  }

 private:
  Tiling tiling_;
  int64_t strips_, parts_, part_floats_, thread_floats_;
  int threads_;
};

}  // namespace

}  // namespace lanes_winograd

std::unique_ptr<Kernel> make_conv2d_lanes_winograd(const KernelRequest& r) {
  using namespace lanes_winograd;
  const auto& p = r.params.as<Conv2dParams>();
  if (!accepts(p, r.in[1].shape)) return nullptr;
  return std::make_unique<lanes_winograd::Forward>(r, tiling(p, r.in[0].shape, r.out[0].shape));
}

bool conv2d_lanes_winograd_pays(const KernelRequest& r) {
  using namespace lanes_winograd;
  const auto& p = r.params.as<Conv2dParams>();
  if (!accepts(p, r.in[1].shape)) return false;
  const Tiling t = tiling(p, r.in[0].shape, r.out[0].shape);
  const int64_t c = t.x.c, o = t.y.c, direct = kTaps * kTaps * t.y.h * t.y.w * c * o;
  return direct > t.y.h * t.columns * (kSide * kTaps * c * o + 30 * (c + o));
}

std::unique_ptr<Kernel> make_conv2d_input_grad_lanes_winograd(const KernelRequest& r) {
  using namespace lanes_winograd;
  const auto& p = r.params.as<Conv2dParams>();
  if (!accepts(p, r.in[1].shape)) return nullptr;
  const Tiling t = tiling(p, r.out[0].shape, r.in[0].shape);
  if (has_few(t)) return nullptr;
  return std::make_unique<lanes_winograd::InputGradient>(r, t);
}

std::unique_ptr<Kernel> make_conv2d_weight_grad_lanes_winograd(const KernelRequest& r) {
  using namespace lanes_winograd;
  const auto& p = r.params.as<Conv2dParams>();
  if (!accepts(p, r.out[0].shape)) return nullptr;
  const Tiling t = tiling(p, r.in[0].shape, r.in[1].shape);
  if (has_few(t)) return std::make_unique<lanes_winograd::WeightGradientOfRows>(r, t);
  return std::make_unique<lanes_winograd::WeightGradient>(r, t);
}

}  // namespace lockstep
