// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/conv2d/lanes.h"
#include "kernels/conv2d/weight_grad_tile.h"
#include "kernels/core/parallel.h"

namespace lockstep {

namespace {

// A pass adds up about this many places (of one or several blocks) in registers before it adds to memory:
// enough to make that cheap, few enough that x and dy stay in the cache for the next tile, and the sums are
// in two levels, which keeps rounding errors small.
constexpr int64_t kPlacesPerPass = 256;

// Every weight has one owner: threads share the tiles of all groups, each goes over the whole batch.
class WeightGradKernel final : public Kernel {
 public:
  explicit WeightGradKernel(const KernelRequest& r)
      : p_(r.params.as<Conv2dParams>()), x_(r.in[0]), dy_(r.in[1]), dw_(r.out[0]), threads_(r.threads) {
    const Shape &x = x_.shape, &dy = dy_.shape, &w = dw_.shape;
    // The part of the padded image that the windows touch.
    padded_h_ = (dy[2] - 1) * p_.stride_h + (w[2] - 1) * p_.dilation_h + 1;
    padded_w_ = (dy[3] - 1) * p_.stride_w + (w[3] - 1) * p_.dilation_w + 1;
    copies_ = p_.pad_top > 0 || p_.pad_left > 0 || padded_h_ > x[2] || padded_w_ > x[3];
    row_ = copies_ ? padded_w_ : x[3];
    plane_ = (copies_ ? padded_h_ : x[2]) * row_ * kLanes;
    blocks_ = (x[0] + kLanes - 1) / kLanes;
    places_ = dy[2] * dy[3];
    blocks_per_pass_ = std::clamp<int64_t>(kPlacesPerPass / places_, 1, std::max<int64_t>(blocks_, 1));
    for (int64_t q = 0; q < dy[2]; ++q)
      for (int64_t u = 0; u < dy[3]; ++u)
        x_at_.push_back((q * p_.stride_h * row_ + u * p_.stride_w) * kLanes);
    for (int64_t c = 0; c < w[1]; ++c)
      for (int64_t s = 0; s < w[2]; ++s)
        for (int64_t t = 0; t < w[3]; ++t)
          taps_.push_back(c * plane_ + (s * p_.dilation_h * row_ + t * p_.dilation_w) * kLanes);
  }

  int64_t workspace_bytes() const override {
    return (sums_size() + (copies_ ? threads_ * copy_size() : 0)) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    auto* dw = args.out[0].as<float>();
    float* db = args.out.size() > 1 ? args.out[1].as<float>() : nullptr;
    if (blocks_ == 0) {
      std::fill_n(dw, dw_.shape.elements(), 0.0f);
      if (db) std::fill_n(db, dw_.shape[0], 0.0f);
      return;
    }
    const WeightGradTiles tiles =
        weight_grad_tiles(dw_.shape[0] / p_.groups, static_cast<int64_t>(taps_.size()));
    const int64_t count = tiles.count() * p_.groups;
    // Not parallel_ranges: a thread needs its number for its copy of the padded image.
    const int threads = static_cast<int>(std::min<int64_t>(threads_, count));
    const auto work = [&](int64_t i, int64_t n) {
      compute(args, tiles, count * i / n, count * (i + 1) / n, i);
      if (db)
        for (int64_t o = dw_.shape[0] * i / n; o < dw_.shape[0] * (i + 1) / n; ++o)
          db[o] = bias_grad(args.in[1].as<float>() + o * places_ * kLanes, blocks_,
                            dy_.shape.elements_from(1) * kLanes, places_);
    };
    on_threads(threads, work);
  }

 private:
  int64_t sums_size() const { return dw_.shape.elements() * kLanes; }
  int64_t copy_size() const { return blocks_per_pass_ * x_.shape[1] * plane_; }

  void compute(const KernelArgs& args, WeightGradTiles tiles, int64_t first, int64_t last,
               int64_t thread) const {
    auto* sums = static_cast<float*>(args.workspace);
    float* copy = sums + sums_size() + thread * copy_size();
    const int64_t x_block = x_.shape.elements_from(1) * kLanes,
                  dy_block = dy_.shape.elements_from(1) * kLanes;
    const int64_t first_group = first / tiles.count(), last_group = (last - 1) / tiles.count();
    WeightGradProblem g;
    g.taps = taps_;
    g.outputs = dw_.shape[0] / p_.groups;
    g.dy_output = places_ * kLanes;
    g.dy_block = dy_block;
    g.x_block = copies_ ? x_.shape[1] * plane_ : x_block;
    const auto each_group = [&](const float* x, const float* dy, auto f) {
      for (int64_t group = first_group; group <= last_group; ++group) {
        g.x = x + group * dw_.shape[1] * plane_;
        g.dy = dy + group * g.outputs * g.dy_output;
        g.sums = sums + group * g.outputs * static_cast<int64_t>(taps_.size()) * kLanes;
        const int64_t begin = group * tiles.count();
        f(group, std::max(first, begin) - begin, std::min(last, begin + tiles.count()) - begin);
      }
    };
    for (int64_t block = 0; block < blocks_; block += g.blocks) {
      g.blocks = std::min(blocks_per_pass_, blocks_ - block);
      const float* x = args.in[0].as<float>() + block * x_block;
      if (copies_) {
        for (int64_t b = 0; b < g.blocks; ++b)
          pad(x + b * x_block, copy + b * g.x_block, first_group * dw_.shape[1],
              (last_group + 1) * dw_.shape[1]);
        x = copy;
      }
      const float* dy = args.in[1].as<float>() + block * dy_block;
      for (int64_t place = 0; place < places_; place += kPlacesPerPass) {
        g.first_place = place;
        g.x_at = std::span(x_at_).subspan(static_cast<size_t>(place),
                                          static_cast<size_t>(std::min(kPlacesPerPass, places_ - place)));
        each_group(x, dy, [&](int64_t, int64_t a, int64_t b) {
          weight_grad_accumulate(g, tiles, a, b, block == 0 && place == 0);
        });
      }
    }
    each_group(nullptr, nullptr, [&](int64_t group, int64_t a, int64_t b) {
      weight_grad_finish(g, tiles, a, b,
                         args.out[0].as<float>() + group * g.outputs * static_cast<int64_t>(taps_.size()));
    });
  }

  // Channels [c0, c1) of one block with zeros around.
  void pad(const float* x, float* to, int64_t c0, int64_t c1) const {
    const int64_t h = x_.shape[2], w = x_.shape[3];
    const int64_t left = std::min(p_.pad_left, padded_w_), inside = std::min(w, padded_w_ - left);
    const auto bytes = [](int64_t places) { return static_cast<size_t>(places * kLanes) * sizeof(float); };
    for (int64_t c = c0; c < c1; ++c)
      for (int64_t i = 0; i < padded_h_; ++i) {
        float* row = to + c * plane_ + i * row_ * kLanes;
        const int64_t from = i - p_.pad_top;
        if (from < 0 || from >= h) {
          std::memset(row, 0, bytes(padded_w_));
          continue;
        }
        std::memset(row, 0, bytes(left));
        std::memcpy(row + left * kLanes, x + (c * h + from) * w * kLanes, bytes(inside));
        std::memset(row + (left + inside) * kLanes, 0, bytes(padded_w_ - left - inside));
      }
  }

  Conv2dParams p_;
  TensorSpec x_, dy_, dw_;
  int threads_;
  bool copies_ = false;
  int64_t padded_h_ = 0, padded_w_ = 0, row_ = 0, plane_ = 0;  // of what the taps walk over
  int64_t blocks_ = 0, places_ = 0, blocks_per_pass_ = 1;
  std::vector<int64_t> x_at_, taps_;
};

}  // namespace

std::unique_ptr<Kernel> make_conv2d_weight_grad_lanes(const KernelRequest& r) {
  return std::make_unique<WeightGradKernel>(r);
}

}  // namespace lockstep
