// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/linear/simd.h"
#include "kernels/simd/gather_product.h"
#include "kernels/simd/transpose.h"

namespace lockstep {

namespace {

constexpr int64_t kOrigin[] = {0};
constexpr GatherTap kOneTap[] = {{}};

// Transposes x into the lanes layout, multiplies there, transposes y back.
class PlainForward final : public Kernel {
 public:
  explicit PlainForward(const KernelRequest& r)
      : activation_(r.params.as<LinearParams>().activation),
        has_bias_(r.in.size() > 2),
        threads_(r.threads),
        n_(r.in[0].shape[0]),
        k_(r.in[1].shape[1]),
        m_(r.in[1].shape[0]),
        blocks_((n_ + kLanes - 1) / kLanes) {}

  int64_t workspace_bytes() const override { return blocks_ * (k_ + m_) * kLanes * size_of(DType::f32); }

  void run(const KernelArgs& args) override {
    auto *x = static_cast<float*>(args.workspace), *y = x + blocks_ * k_ * kLanes;
    const auto* from = args.in[0].as<float>();
    each_block(k_, [&](int64_t b, int64_t samples, int64_t k, int64_t count) {
      float* to = x + (b * k_ + k) * kLanes;
      if (samples < kLanes) std::fill_n(to, count * kLanes, 0.0f);
      transpose(from + b * kLanes * k_ + k, k_, samples, count, to, kLanes);
    });
    GatherProblem g;
    g.x = x;
    g.w = args.in[1].as<float>();
    g.bias = has_bias_ ? args.in[2].as<float>() : nullptr;
    g.y = y;
    g.blocks = blocks_;
    g.x_block = k_ * kLanes;
    g.y_block = m_ * kLanes;
    g.x_at = g.y_at = kOrigin;
    g.taps = kOneTap;
    g.channels = k_;
    g.x_channel = g.y_output = kLanes;
    g.w_channel = 1;
    g.outputs = m_;
    g.w_output = k_;
    g.activation = activation_;
    gather_product(g, threads_);
    auto* to = args.out[0].as<float>();
    each_block(m_, [&](int64_t b, int64_t samples, int64_t m, int64_t count) {
      transpose(y + (b * m_ + m) * kLanes, kLanes, count, samples, to + b * kLanes * m_ + m, m_);
    });
  }

 private:
  // f(block, samples in it, first column, columns) over blocks of 16 x 16.
  template <class F>
  void each_block(int64_t columns, F f) {
    const int64_t across = (columns + kLanes - 1) / kLanes;
    parallel_ranges(blocks_ * across, threads_, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / across, c = i % across * kLanes;
        f(b, std::min<int64_t>(kLanes, n_ - b * kLanes), c, std::min<int64_t>(kLanes, columns - c));
      }
    });
  }

  Activation activation_;
  bool has_bias_;
  int threads_;
  int64_t n_, k_, m_, blocks_;
};

// c[i][k] = sum over j of a(i, j) * b[j][k]: vectors along k, a broadcast at any strides.
class RowProduct {
 public:
  RowProduct(int64_t rows, int64_t sums, int64_t columns, int64_t a_row, int64_t a_sum, int threads)
      : rows_(rows), sums_(sums), columns_(columns), a_row_(a_row), a_sum_(a_sum), threads_(threads) {
    for (int64_t k = 0; k + kLanes <= columns; k += kLanes) at_.push_back(k);
  }

  int64_t workspace_bytes() const { return tail() == 0 ? 0 : (sums_ + rows_) * kLanes * size_of(DType::f32); }

  void run(const float* a, const float* b, float* c, void* workspace) const {
    GatherProblem g;
    g.x = b;
    g.w = a;
    g.y = c;
    g.x_at = g.y_at = at_;
    g.taps = kOneTap;
    g.channels = sums_;
    g.x_channel = g.y_output = columns_;
    g.w_channel = a_sum_;
    g.outputs = rows_;
    g.w_output = a_row_;
    gather_product(g, threads_);
    if (tail() == 0) return;
    // The last columns fill no vector: through a copy that does.
    auto *b_tail = static_cast<float*>(workspace), *c_tail = b_tail + sums_ * kLanes;
    const int64_t first = columns_ - tail();
    for (int64_t j = 0; j < sums_; ++j) {
      std::copy_n(b + j * columns_ + first, tail(), b_tail + j * kLanes);
      std::fill(b_tail + j * kLanes + tail(), b_tail + (j + 1) * kLanes, 0.0f);
    }
    g.x = b_tail;
    g.y = c_tail;
    g.x_at = g.y_at = kOrigin;
    g.x_channel = g.y_output = kLanes;
    gather_product(g, threads_);
    for (int64_t i = 0; i < rows_; ++i) std::copy_n(c_tail + i * kLanes, tail(), c + i * columns_ + first);
  }

 private:
  int64_t tail() const { return columns_ % kLanes; }
  int64_t rows_, sums_, columns_, a_row_, a_sum_;
  int threads_;
  std::vector<int64_t> at_;
};

class PlainInputGrad final : public Kernel {
 public:
  explicit PlainInputGrad(const KernelRequest& r)
      : product_(r.in[0].shape[0], r.in[1].shape[0], r.in[1].shape[1], r.in[1].shape[0], 1, r.threads) {}
  int64_t workspace_bytes() const override { return product_.workspace_bytes(); }
  void run(const KernelArgs& args) override {
    product_.run(args.in[0].as<float>(), args.in[1].as<float>(), args.out[0].as<float>(), args.workspace);
  }

 private:
  RowProduct product_;
};

class PlainWeightGrad final : public Kernel {
 public:
  explicit PlainWeightGrad(const KernelRequest& r)
      : n_(r.in[0].shape[0]),
        m_(r.out[0].shape[0]),
        product_(m_, n_, r.out[0].shape[1], 1, m_, r.threads),
        bias_sums_(static_cast<size_t>(r.out.size() > 1 ? m_ : 0)) {}
  int64_t workspace_bytes() const override { return product_.workspace_bytes(); }
  void run(const KernelArgs& args) override {
    const auto* dy = args.in[1].as<float>();
    product_.run(dy, args.in[0].as<float>(), args.out[0].as<float>(), args.workspace);
    if (args.out.size() < 2) return;
    std::fill(bias_sums_.begin(), bias_sums_.end(), 0.0);
    for (int64_t n = 0; n < n_; ++n)
      for (int64_t m = 0; m < m_; ++m) bias_sums_[static_cast<size_t>(m)] += dy[n * m_ + m];
    for (int64_t m = 0; m < m_; ++m)
      args.out[1].as<float>()[m] = static_cast<float>(bias_sums_[static_cast<size_t>(m)]);
  }

 private:
  int64_t n_, m_;
  RowProduct product_;
  std::vector<double> bias_sums_;
};

}  // namespace

std::unique_ptr<Kernel> make_linear_highway(const KernelRequest& r) {
  return std::make_unique<PlainForward>(r);
}
std::unique_ptr<Kernel> make_linear_input_grad_highway(const KernelRequest& r) {
  return std::make_unique<PlainInputGrad>(r);
}
std::unique_ptr<Kernel> make_linear_weight_grad_highway(const KernelRequest& r) {
  return std::make_unique<PlainWeightGrad>(r);
}

}  // namespace lockstep
