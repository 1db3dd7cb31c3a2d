// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/gemm.h"

#include <algorithm>

#include "kernels/conv2d/bias_grad.h"
#include "kernels/conv2d/pointwise.h"
#include "kernels/core/bf16.h"
#include "kernels/core/parallel.h"
#include "kernels/simd/convert.h"
#include "kernels/simd/sum.h"

namespace lockstep {

namespace {

constexpr int64_t kPanels = 8;              // whose sums for a block of rows stay in the second cache
constexpr int64_t kRowFloats = 1'000'000;   // of patches of a block of rows
constexpr int64_t kStrip = 24;              // rows: whole strips of 6 and of 8
constexpr int64_t kBlockRows = 8 * kStrip;  // so many share what is read of the filters

Range part_of(int64_t n, int64_t i, int64_t size) { return {i * size, std::min((i + 1) * size, n)}; }

// Rows that lie as the outputs do, one pixel each.
Patches rows_of_outputs(const GemmProblem& g) {
  return {.h = g.patches.p, .w = g.patches.q, .c = g.outputs, .p = g.patches.p, .q = g.patches.q};
}

// y[row][column] = sum over k of a patch's element k times a filter's: y from x, or, where each pixel of y
// takes one of x and the other way round, dx from dy.
class Product final : public Kernel {
 public:
  Product(const GemmProblem& g, bool back)
      : g_(g),
        rows_from_(back ? rows_of_outputs(g) : g.patches),
        back_(back),
        depth_(rows_from_.taps() * rows_from_.c),
        columns_(back ? g.patches.c : g.outputs),
        rows_(g.samples * g.patches.outputs()),
        a_row_(depth_ + kPad),
        strips_(divide_up(std::max<int64_t>(rows_, 1), kStrip)) {
    const int64_t most = std::clamp(kRowFloats / depth_ / kStrip, int64_t{2}, kBlockRows / kStrip);
    // Threads get as many blocks each, where there are rows for that.
    blocks_ = std::min(divide_up(divide_up(strips_, most), g.threads) * g.threads, strips_);
    together_ = divide_up(strips_, blocks_) * kStrip;
  }

  int64_t workspace_bytes() const override {
    return (panels() * depth_ * kPanel + g_.threads * thread_floats()) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    if (rows_ == 0) return;
    auto* filters = static_cast<float*>(args.workspace);
    float* scratch = filters + panels() * depth_ * kPanel;
    parallel_for(panels(), g_.threads, [&](int64_t i) {
      const Range panel = part_of(columns_, i, kPanel);
      float* to = filters + i * depth_ * kPanel;
      back_ ? pack_filters_back(g_.patches, args.in[1], g_.outputs, 0, panel, to)
            : pack_filters(g_.patches, args.in[1], panel, to);
    });
    const float* bias = g_.bias && !back_ ? args.in[2].as<float>() : nullptr;
    // Where there are few rows, threads share the columns too.
    const int64_t parts = std::min(panels(), divide_up(g_.threads, blocks_));
    parallel_ranges(blocks_ * parts, g_.threads, 1, [&](int64_t first, int64_t last) {
      float *a = scratch + thread_index() * thread_floats(), *c = a + together_ * a_row_;
      for (int64_t job = first; job < last; ++job) {
        const Range rows = block(job / parts);
        if (job == first || job % parts == 0)
          load_patches(rows_from_, args.in[0], rows, {0, rows_from_.taps()}, {0, rows_from_.c}, a, a_row_);
        const int64_t part = job % parts;
        const int64_t end = panels() * (part + 1) / parts;
        for (int64_t i = panels() * part / parts; i < end; i += kPanels) {
          const int64_t count = std::min(kPanels, end - i);
          multiply_panels(a, a_row_, rows.size(), depth_, filters + i * depth_ * kPanel, c, count);
          store_rows(c, rows, {i * kPanel, std::min((i + count) * kPanel, columns_)}, bias,
                     g_.patches.params.activation, args.out[0], columns_);
        }
      }
    });
  }

 private:
  int64_t panels() const { return divide_up(columns_, kPanel); }
  int64_t thread_floats() const { return together_ * (a_row_ + kPanels * kPanel); }
  // Whole strips, as many as any other has or one fewer; the last rows may fill none.
  Range block(int64_t i) const {
    return {strips_ * i / blocks_ * kStrip, std::min(strips_ * (i + 1) / blocks_ * kStrip, rows_)};
  }

  static constexpr int64_t kPad = 16;  // rows a power of two apart would meet in few lines of the cache

  GemmProblem g_;
  Patches rows_from_;
  bool back_;
  int64_t depth_, columns_, rows_, a_row_;
  int64_t strips_, blocks_ = 1, together_ = 0;  // of rows; together_: the most rows of a block
};

// dx, bf16: a thread adds up a sample's in f32.
class InputGradient final : public Kernel {
 public:
  explicit InputGradient(const GemmProblem& g) : g_(g), dy_(rows_of_outputs(g)) {}

  int64_t workspace_bytes() const override {
    return (g_.patches.taps() * panels() * panel_floats() + g_.threads * thread_floats()) *
           size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    const Patches& x = g_.patches;
    auto* filters = static_cast<float*>(args.workspace);
    float* scratch = filters + x.taps() * panels() * panel_floats();
    parallel_for(x.taps() * panels(), g_.threads, [&](int64_t i) {
      pack_filters_back(x, args.in[1], g_.outputs, i / panels(), part_of(x.c, i % panels(), kPanel),
                        filters + i * panel_floats());
    });
    parallel_ranges(g_.samples, g_.threads, 1, [&](int64_t first, int64_t last) {
      float* image = scratch + thread_index() * thread_floats();
      for (int64_t n = first; n < last; ++n) {
        add_up(args.in[0], n, filters, image);
        const TensorSpec from{DType::f32, {image_floats()}}, to{DType::bf16, {image_floats()}};
        convert({from, image}, {to, args.out[0].as<bf16>() + n * image_floats()}, 1);
      }
    });
  }

 private:
  static constexpr int64_t kRows = 2 * kStrip;
  int64_t panels() const { return divide_up(g_.patches.c, kPanel); }
  int64_t panel_floats() const { return g_.outputs * kPanel; }
  int64_t image_floats() const { return g_.patches.h * g_.patches.w * g_.patches.c; }
  int64_t thread_floats() const { return image_floats() + kRows * (g_.outputs + kPanel); }

  void add_up(const View& dy, int64_t sample, float* filters, float* image) const {
    float *a = image + image_floats(), *c = a + kRows * g_.outputs;
    std::fill_n(image, image_floats(), 0.0f);
    const int64_t first = sample * g_.patches.outputs(), last = first + g_.patches.outputs();
    for (int64_t row = first; row < last; row += kRows) {
      const Range rows{row, std::min(row + kRows, last)};
      load_patches(dy_, dy, rows, {0, 1}, {0, g_.outputs}, a, g_.outputs);
      for (int64_t i = 0; i < g_.patches.taps() * panels(); ++i) {
        multiply_panels(a, g_.outputs, rows.size(), g_.outputs, filters + i * panel_floats(), c, 1);
        add_patches(g_.patches, c, rows, i / panels(), part_of(g_.patches.c, i % panels(), kPanel), image);
      }
    }
  }

  GemmProblem g_;
  Patches dy_;
};

// Threads share blocks of dw, up to kBlock outputs times as many elements of a patch, whose sums stay in the
// cache while rows pass by; where there are few blocks, the rows are cut into parts too, by shape alone.
class WeightGradient final : public Kernel {
 public:
  explicit WeightGradient(const GemmProblem& g)
      : g_(g),
        dy_(rows_of_outputs(g)),
        rows_(g.samples * g.patches.outputs()),
        taps_together_(std::clamp<int64_t>(kBlock / g.patches.c, 1, g.patches.taps())),
        blocks_c_(divide_up(g.patches.c, kBlock)),
        blocks_(divide_up(g.outputs, kBlock) * divide_up(g.patches.taps(), taps_together_) * blocks_c_),
        parts_(std::clamp<int64_t>(rows_ / kRowsOfPart, 1, divide_up(kJobs, blocks_))) {}

  int64_t workspace_bytes() const override {
    return (g_.threads * kThreadFloats + (parts_ > 1 ? parts_ * elements() : 0)) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    auto *dw = args.out[0].as<float>(), *scratch = static_cast<float*>(args.workspace);
    float* parts = scratch + g_.threads * kThreadFloats;
    parallel_ranges(blocks_ * parts_, g_.threads, 1, [&](int64_t first, int64_t last) {
      float* mine = scratch + thread_index() * kThreadFloats;
      for (int64_t job = first; job < last; ++job) {
        const int64_t part = job % parts_;
        compute(args, job / parts_, {rows_ * part / parts_, rows_ * (part + 1) / parts_}, mine,
                parts_ > 1 ? parts + part * elements() : dw);
      }
    });
    if (parts_ > 1) sum_parts(parts, elements(), parts_, elements(), dw, g_.threads);
    if (g_.bias)
      bias_grad_nhwc(args.in[1], g_.samples * g_.patches.p, g_.patches.q, g_.outputs, args.out[1].as<float>(),
                     g_.threads);
  }

 private:
  static constexpr int64_t kBlock = 64, kRows = 128;
  static constexpr int64_t kJobs = 16;         // enough to share evenly
  static constexpr int64_t kRowsOfPart = 512;  // at least
  static constexpr int64_t kThreadFloats = (2 * kRows + kBlock) * kBlock;

  int64_t elements() const { return g_.outputs * g_.patches.c * g_.patches.taps(); }

  void compute(const KernelArgs& args, int64_t block, Range all, float* scratch, float* dw) const {
    const Patches& x = g_.patches;
    const int64_t block_c = block % blocks_c_, rest = block / blocks_c_;
    const int64_t tap_blocks = divide_up(x.taps(), taps_together_);
    const Range channels = part_of(x.c, block_c, kBlock),
                outputs = part_of(g_.outputs, rest / tap_blocks, kBlock);
    const Range taps = part_of(x.taps(), rest % tap_blocks, taps_together_);
    const int64_t columns = taps.size() * channels.size();
    float *of_dy = scratch, *of_x = of_dy + kRows * kBlock, *sums = of_x + kRows * kBlock;
    std::fill_n(of_x, kRows * kBlock, 0.0f);  // what lies behind the columns
    int64_t row = all.first;
    do {  // once at least: without samples the sums are zero
      const Range rows{row, std::min(row + kRows, all.last)};
      load_patches(dy_, args.in[1], rows, {0, 1}, outputs, of_dy, kBlock);
      load_patches(x, args.in[0], rows, taps, channels, of_x, kBlock);
      for (int64_t column = 0; column < columns; column += kPanel)
        multiply({.a = {of_dy, 0, 1},
                  .a_step = kBlock,
                  .b = {of_x + column, 0, kBlock},
                  .c = {sums + column * kBlock, 0, kPanel},
                  .rows = outputs.size(),
                  .depth = rows.size(),
                  .add = row > all.first});
      row = rows.last;
    } while (row < all.last);
    for (int64_t o = 0; o < outputs.size(); ++o)
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t tap = taps.first + i / channels.size(), c = channels.first + i % channels.size();
        dw[((outputs.first + o) * x.c + c) * x.taps() + tap] =
            sums[i / kPanel * kPanel * kBlock + o * kPanel + i % kPanel];
      }
  }

  GemmProblem g_;
  Patches dy_;
  int64_t rows_, taps_together_, blocks_c_, blocks_, parts_;
};

bool one_pixel_each(const Patches& g) {
  const Conv2dParams& p = g.params;
  return g.taps() == 1 && g.p == g.h && g.q == g.w && p.stride_h == 1 && p.stride_w == 1 && p.pad_top == 0 &&
         p.pad_left == 0;
}

// x [N, C, H, W], w [O, C, KH, KW], y [N, O, P, Q].
GemmProblem problem(const KernelRequest& r, const Shape& x, const Shape& w, const Shape& y, bool bias) {
  const Patches patches{.params = r.params.as<Conv2dParams>(),
                        .h = x[2],
                        .w = x[3],
                        .c = x[1],
                        .p = y[2],
                        .q = y[3],
                        .kh = w[2],
                        .kw = w[3]};
  return {patches, x[0], w[0], bias, r.threads};
}

bool one_group(const KernelRequest& r) { return r.params.as<Conv2dParams>().groups == 1; }

}  // namespace

std::unique_ptr<Kernel> make_gemm(const GemmProblem& g) {
  if (one_pixel_each(g.patches) && is_pointwise(g.samples * g.patches.outputs())) return make_pointwise(g);
  return std::make_unique<Product>(g, false);
}

std::unique_ptr<Kernel> make_gemm_input_grad(const GemmProblem& g) {
  if (one_pixel_each(g.patches)) return std::make_unique<Product>(g, true);
  return std::make_unique<InputGradient>(g);
}

std::unique_ptr<Kernel> make_gemm_weight_grad(const GemmProblem& g) {
  return std::make_unique<WeightGradient>(g);
}

std::unique_ptr<Kernel> make_conv2d_gemm(const KernelRequest& r) {
  if (!one_group(r)) return nullptr;
  return make_gemm(problem(r, r.in[0].shape, r.in[1].shape, r.out[0].shape, r.in.size() > 2));
}

std::unique_ptr<Kernel> make_conv2d_input_grad_gemm(const KernelRequest& r) {
  if (!one_group(r) || r.out[0].dtype != DType::bf16) return nullptr;
  return make_gemm_input_grad(problem(r, r.out[0].shape, r.in[1].shape, r.in[0].shape, false));
}

std::unique_ptr<Kernel> make_conv2d_weight_grad_gemm(const KernelRequest& r) {
  if (!one_group(r) || r.out[0].dtype != DType::f32) return nullptr;
  return make_gemm_weight_grad(problem(r, r.in[0].shape, r.out[0].shape, r.in[1].shape, r.out.size() > 1));
}

}  // namespace lockstep
