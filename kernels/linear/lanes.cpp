// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/linear/simd.h"
#include "kernels/simd/gather_product.h"
#include "kernels/simd/transpose.h"

namespace lockstep {

namespace {

constexpr int64_t kLaneOrigin[] = {0};
constexpr GatherTap kLaneTap[] = {{}};

// y[b][m][16] from x[b][k][16] and rows of weights at any strides.
class LanesProduct final : public Kernel {
 public:
  LanesProduct(const TensorSpec& x, const TensorSpec& y, int64_t w_output, int64_t w_channel,
               Activation activation, bool has_bias, int threads)
      : has_bias_(has_bias), threads_(threads) {
    problem_.blocks = (x.shape[0] + kLanes - 1) / kLanes;
    problem_.last_lanes = x.shape[0] - (problem_.blocks - 1) * kLanes;
    problem_.x_at = problem_.y_at = kLaneOrigin;
    problem_.taps = kLaneTap;
    problem_.channels = x.shape.elements_from(1);
    problem_.outputs = y.shape.elements_from(1);
    problem_.x_block = problem_.channels * kLanes;
    problem_.y_block = problem_.outputs * kLanes;
    problem_.x_channel = problem_.y_output = kLanes;
    problem_.w_channel = w_channel;
    problem_.w_output = w_output;
    problem_.activation = activation;
  }

  void run(const KernelArgs& args) override {
    GatherProblem g = problem_;
    g.x = args.in[0].as<float>();
    g.w = args.in[1].as<float>();
    g.y = args.out[0].as<float>();
    if (has_bias_) g.bias = args.in[2].as<float>();
    gather_product(g, threads_);
  }

 private:
  GatherProblem problem_;
  bool has_bias_;
  int threads_;
};

// Transposes x into panels of 16 columns, [k/16][n][16], then dw[m][k..k+16] = sum over n of dy[n][m] * panel
// row.
class LanesWeightGrad final : public Kernel {
 public:
  explicit LanesWeightGrad(const KernelRequest& r)
      : threads_(r.threads),
        blocks_((r.in[0].shape[0] + kLanes - 1) / kLanes),
        k_(r.out[0].shape[1]),
        m_(r.out[0].shape[0]),
        panels_((k_ + kLanes - 1) / kLanes),
        panel_(blocks_ * kLanes * kLanes) {
    for (int64_t i = 0; i < panels_; ++i) panel_at_.push_back(i * panel_), dw_at_.push_back(i * kLanes);
    for (int64_t lane = 0; lane < kLanes; ++lane) taps_.push_back({lane * kLanes, lane});
  }

  int64_t workspace_bytes() const override { return (panels_ * panel_ + m_ * kLanes) * size_of(DType::f32); }

  void run(const KernelArgs& args) override {
    const auto *x = args.in[0].as<float>(), *dy = args.in[1].as<float>();
    auto *dw = args.out[0].as<float>(), *panels = static_cast<float*>(args.workspace);
    float* tail = panels + panels_ * panel_;  // the last columns, where they fill no vector
    parallel_ranges(panels_, threads_, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t columns = std::min<int64_t>(kLanes, k_ - i * kLanes);
        float* panel = panels + i * panel_;
        if (columns < kLanes) std::fill_n(panel, panel_, 0.0f);
        for (int64_t b = 0; b < blocks_; ++b)
          transpose(x + (b * k_ + i * kLanes) * kLanes, kLanes, columns, kLanes, panel + b * kLanes * kLanes,
                    kLanes);
      }
    });
    GatherProblem g;
    g.x = panels;
    g.w = dy;
    g.y = dw;
    const auto whole = static_cast<size_t>(k_ / kLanes);
    g.x_at = std::span(panel_at_).first(whole);
    g.y_at = std::span(dw_at_).first(whole);
    g.taps = taps_;
    g.channels = blocks_;
    g.x_channel = kLanes * kLanes;
    g.w_channel = m_ * kLanes;
    g.outputs = m_;
    g.w_output = kLanes;
    g.y_output = k_;
    gather_product(g, threads_);
    if (k_ % kLanes != 0) {
      g.y = tail;
      g.x_at = std::span(panel_at_).subspan(whole);
      g.y_at = kLaneOrigin;
      g.y_output = kLanes;
      gather_product(g, threads_);
      for (int64_t m = 0; m < m_; ++m)
        std::copy_n(tail + m * kLanes, k_ % kLanes, dw + m * k_ + k_ / kLanes * kLanes);
    }
    if (args.out.size() < 2) return;
    for (int64_t m = 0; m < m_; ++m) {
      double sum = 0;
      for (int64_t b = 0; b < blocks_; ++b)
        for (int64_t lane = 0; lane < kLanes; ++lane) sum += dy[(b * m_ + m) * kLanes + lane];
      args.out[1].as<float>()[m] = static_cast<float>(sum);
    }
  }

 private:
  int threads_;
  int64_t blocks_, k_, m_, panels_, panel_;
  std::vector<int64_t> panel_at_, dw_at_;
  std::vector<GatherTap> taps_;
};

}  // namespace

std::unique_ptr<Kernel> make_linear_lanes(const KernelRequest& r) {
  return std::make_unique<LanesProduct>(r.in[0], r.out[0], r.in[1].shape[1], 1,
                                        r.params.as<LinearParams>().activation, r.in.size() > 2, r.threads);
}

std::unique_ptr<Kernel> make_linear_input_grad_lanes(const KernelRequest& r) {
  return std::make_unique<LanesProduct>(r.in[0], r.out[0], 1, r.in[1].shape[1], Activation::none, false,
                                        r.threads);
}

std::unique_ptr<Kernel> make_linear_weight_grad_lanes(const KernelRequest& r) {
  return std::make_unique<LanesWeightGrad>(r);
}

}  // namespace lockstep
