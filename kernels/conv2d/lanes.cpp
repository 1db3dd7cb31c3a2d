// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/lanes.h"

#include "kernels/conv2d/geometry.h"
#include "kernels/core/parallel.h"

namespace lockstep {

namespace {

constexpr double kGrainWork = 40'000;  // vector multiply-adds below which a thread isn't worth waking

int64_t blocks_of(const TensorSpec& s) { return (s.shape[0] + kLanes - 1) / kLanes; }
int64_t last_lanes(const TensorSpec& s) { return s.shape[0] - (blocks_of(s) - 1) * kLanes; }

// One gather problem a class and group; all of their tiles in one parallel loop.
class GatherKernel final : public Kernel {
 public:
  // `problem` is for group 0; the steps lead to the next group.
  GatherKernel(std::vector<GatherClass> classes, GatherProblem problem, int64_t groups, int64_t x_step,
               int64_t w_step, int64_t y_step, bool has_bias, int threads)
      : classes_(std::move(classes)),
        problem_(problem),
        groups_(groups),
        x_step_(x_step),
        w_step_(w_step),
        y_step_(y_step),
        has_bias_(has_bias),
        threads_(threads),
        tiles_(classes_.size()) {}

  void run(const KernelArgs& args) override {
    if (problem_.blocks == 0) return;
    int64_t count = 0;
    double work = 0;
    for (size_t i = 0; i < classes_.size(); ++i) {
      const auto positions = static_cast<int64_t>(classes_[i].x_at.size()) * problem_.blocks;
      tiles_[i] = gather_tiles(problem_.outputs, positions);
      count += tiles_[i].count() * groups_;
      work += static_cast<double>(positions * problem_.outputs * problem_.channels * groups_) *
              static_cast<double>(classes_[i].taps.size());
    }
    const auto grain = static_cast<int64_t>(static_cast<double>(count) * kGrainWork / (work + 1)) + 1;
    parallel_ranges(count, threads_, grain, [&](int64_t first, int64_t last) { compute(args, first, last); });
  }

 private:
  void compute(const KernelArgs& args, int64_t first, int64_t last) {
    int64_t begin = 0;  // of this class and group's tiles
    for (int64_t group = 0; group < groups_; ++group)
      for (size_t i = 0; i < classes_.size() && begin < last; ++i) {
        const int64_t end = begin + tiles_[i].count();
        if (end > first) {
          GatherProblem g = problem_;
          g.x = args.in[0].as<float>() + group * x_step_;
          g.w = args.in[1].as<float>() + group * w_step_;
          g.y = args.out[0].as<float>() + group * y_step_;
          if (has_bias_) g.bias = args.in[2].as<float>() + group * g.outputs;
          g.x_at = classes_[i].x_at;
          g.y_at = classes_[i].y_at;
          g.taps = classes_[i].taps;
          gather_product(g, tiles_[i], std::max(first, begin) - begin, std::min(last, end) - begin);
        }
        begin = end;
      }
  }

  std::vector<GatherClass> classes_;
  GatherProblem problem_;
  int64_t groups_, x_step_, w_step_, y_step_;
  bool has_bias_;
  int threads_;
  std::vector<GatherTiles> tiles_;
};

}  // namespace

std::unique_ptr<Kernel> make_conv2d_lanes(const KernelRequest& r) {
  const auto& p = r.params.as<Conv2dParams>();
  const Shape &x = r.in[0].shape, &w = r.in[1].shape, &y = r.out[0].shape;
  const int64_t x_plane = x[2] * x[3] * kLanes, y_plane = y[2] * y[3] * kLanes;
  GatherProblem g;
  g.blocks = blocks_of(r.in[0]);
  g.last_lanes = last_lanes(r.in[0]);
  g.x_block = x[1] * x_plane;
  g.y_block = y[1] * y_plane;
  g.channels = w[1];
  g.x_channel = x_plane;
  g.w_channel = w[2] * w[3];
  g.outputs = y[1] / p.groups;
  g.w_output = w.elements_from(1);
  g.y_output = y_plane;
  g.activation = p.activation;
  return std::make_unique<GatherKernel>(forward_classes(p, {x[2], x[3]}, {y[2], y[3]}, {w[2], w[3]}), g,
                                        p.groups, g.channels * x_plane, g.outputs * g.w_output,
                                        g.outputs * y_plane, r.in.size() > 2, r.threads);
}

std::unique_ptr<Kernel> make_conv2d_input_grad_lanes(const KernelRequest& r) {
  const auto& p = r.params.as<Conv2dParams>();
  const Shape &dy = r.in[0].shape, &w = r.in[1].shape, &dx = r.out[0].shape;
  const int64_t dx_plane = dx[2] * dx[3] * kLanes, dy_plane = dy[2] * dy[3] * kLanes;
  GatherProblem g;
  g.blocks = blocks_of(r.in[0]);
  g.last_lanes = last_lanes(r.in[0]);
  g.x_block = dy[1] * dy_plane;
  g.y_block = dx[1] * dx_plane;
  g.channels = dy[1] / p.groups;
  g.x_channel = dy_plane;
  g.w_channel = w.elements_from(1);
  g.outputs = w[1];
  g.w_output = w[2] * w[3];
  g.y_output = dx_plane;
  return std::make_unique<GatherKernel>(input_grad_classes(p, {dx[2], dx[3]}, {dy[2], dy[3]}, {w[2], w[3]}),
                                        g, p.groups, g.channels * dy_plane, g.channels * g.w_channel,
                                        g.outputs * dx_plane, false, r.threads);
}

}  // namespace lockstep
