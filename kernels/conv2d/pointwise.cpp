// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/pointwise.h"

#include <algorithm>

#include "kernels/core/parallel.h"
#include "kernels/simd/transpose.h"

namespace lockstep {

namespace {

constexpr int64_t kOutputs = 96;       // of filters at once: whole strips of 6 and of 8
constexpr int64_t kFilterPanels = 16;  // whose sums for so many outputs stay in the second cache
constexpr int64_t kPad = 16;           // rows a power of two apart would meet in few lines of the cache

Range part_of(Range all, int64_t i, int64_t size) {
  return {all.first + i * size, std::min(all.first + (i + 1) * size, all.last)};
}

class Pointwise final : public Kernel {
 public:
  explicit Pointwise(const GemmProblem& g)
      : g_(g), rows_(g.samples * g.patches.outputs()), depth_(g.patches.c), filter_row_(depth_ + kPad) {}

  int64_t workspace_bytes() const override {
    return (panels() * panel_floats() + g_.threads * thread_floats()) * size_of(DType::f32);
  }

  void run(const KernelArgs& args) override {
    auto* x = static_cast<float*>(args.workspace);
    parallel_for(panels(), g_.threads, [&](int64_t i) {
      pack_filters(row(), args.in[0], part_of({0, rows_}, i, kPanel), x + i * panel_floats());
    });
    // Each thread takes a part of the longer side, and all of the other.
    const Range all_panels{0, panels()}, all_outputs{0, g_.outputs};
    if (g_.outputs > rows_)
      parallel_ranges(divide_up(g_.outputs, kPanel), g_.threads, 1, [&](int64_t begin, int64_t end) {
        compute(args, all_panels, {begin * kPanel, std::min(end * kPanel, g_.outputs)});
      });
    else
      parallel_ranges(panels(), g_.threads, 1, [&](int64_t begin, int64_t end) {
        compute(args, {begin, end}, all_outputs);
      });
  }

 private:
  // A row of x or of the filters, as a patch.
  Patches row() const { return {.c = depth_}; }
  int64_t panels() const { return divide_up(rows_, kPanel); }
  int64_t panel_floats() const { return depth_ * kPanel; }
  int64_t thread_floats() const {
    return kOutputs * (filter_row_ + kFilterPanels * kPanel) + kPanel * kPanel;
  }

  // y of these outputs and panels of x.
  void compute(const KernelArgs& args, Range of_x, Range outputs) const {
    const float* bias = g_.bias ? args.in[2].as<float>() : nullptr;
    auto* x = static_cast<float*>(args.workspace);
    float* filters = x + panels() * panel_floats() + thread_index() * thread_floats();
    float *sums = filters + kOutputs * filter_row_, *turned = sums + kOutputs * kFilterPanels * kPanel;
    std::fill_n(turned, kPanel * kPanel, 0.0f);  // what lies behind the last outputs
    for (int64_t o = 0; o < divide_up(outputs.size(), kOutputs); ++o) {
      const Range some = part_of(outputs, o, kOutputs);
      load_patches(row(), args.in[1], some, {0, 1}, {0, depth_}, filters, filter_row_);
      for (int64_t i = of_x.first; i < of_x.last; i += kFilterPanels) {
        const int64_t count = std::min(kFilterPanels, of_x.last - i);
        const auto turn = [&](int64_t k) {
          for (int64_t s = 0; s < some.size(); s += kPanel) {
            const Range columns{some.first + s, std::min(some.first + s + kPanel, some.last)};
            transpose(sums + (k * some.size() + s) * kPanel, kPanel, columns.size(), kPanel, turned, kPanel);
            store_rows(turned, part_of({0, rows_}, i + k, kPanel), columns, bias,
                       g_.patches.params.activation, args.out[0], g_.outputs);
          }
        };
        multiply_panels(filters, filter_row_, some.size(), depth_, x + i * panel_floats(), sums, count, turn);
      }
    }
  }

  GemmProblem g_;
  int64_t rows_, depth_, filter_row_;
};

}  // namespace

std::unique_ptr<Kernel> make_pointwise(const GemmProblem& g) { return std::make_unique<Pointwise>(g); }

}  // namespace lockstep
