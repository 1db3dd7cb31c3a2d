// SPDX-License-Identifier: Apache-2.0
// Plain loops in double: what every other attention kernel is tested against.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/core/kernel.h"
#include "kernels/core/padding.h"

namespace lockstep {
namespace {

// One head of one sample.
struct Head {
  int64_t n, first;  // first channel
  int64_t queries, keys, width;
  double scale;

  static double at(const View& x, int64_t n, int64_t c, int64_t token) {
    return double{x.as<float>()[x.spec.offset(n, c * x.shape().elements_from(2) + token)]};
  }
  double operator()(const View& x, int64_t token, int64_t c) const { return at(x, n, first + c, token); }
  void set(const View& x, int64_t token, int64_t c, double value) const {
    x.as<float>()[x.spec.offset(n, (first + c) * x.shape().elements_from(2) + token)] =
        static_cast<float>(value);
  }
  double dot(const View& x, int64_t i, const View& y, int64_t j) const {
    double sum = 0;
    for (int64_t c = 0; c < width; ++c) sum += (*this)(x, i, c) * (*this)(y, j, c);
    return sum;
  }
};

template <class F>
void for_each_head(const AttentionParams& p, const View& q, const View& k, F f) {
  const int64_t width = q.dim(1) / p.heads;
  for (int64_t n = 0; n < q.dim(0); ++n)
    for (int64_t h = 0; h < p.heads; ++h)
      f(Head{n, h * width, q.shape().elements_from(2), k.shape().elements_from(2), width, double{p.scale}},
        h);
}

void forward(const AttentionParams& p, const KernelArgs& args) {
  const View &q = args.in[0], &k = args.in[1], &v = args.in[2], &o = args.out[0], &lse = args.out[1];
  for_each_head(p, q, k, [&](const Head& at, int64_t h) {
    std::vector<double> s(static_cast<size_t>(at.keys)), sum(static_cast<size_t>(at.width));
    for (int64_t i = 0; i < at.queries; ++i) {
      for (int64_t j = 0; j < at.keys; ++j) s[static_cast<size_t>(j)] = at.scale * at.dot(q, i, k, j);
      const double most = *std::max_element(s.begin(), s.end());
      double total = 0;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t j = 0; j < at.keys; ++j) {
        const double e = std::exp(s[static_cast<size_t>(j)] - most);
        total += e;
        for (int64_t c = 0; c < at.width; ++c) sum[static_cast<size_t>(c)] += e * at(v, j, c);
      }
      for (int64_t c = 0; c < at.width; ++c) at.set(o, i, c, sum[static_cast<size_t>(c)] / total);
      lse.as<float>()[lse.spec.offset(at.n, h * at.queries + i)] = static_cast<float>(most + std::log(total));
    }
  });
  zero_padding_lanes(o);
  zero_padding_lanes(lse);
}

void gradient(const AttentionParams& p, const KernelArgs& args) {
  const View &q = args.in[0], &k = args.in[1], &v = args.in[2], &o = args.in[3], &lse = args.in[4],
             &dout = args.in[5];
  const View &dq = args.out[0], &dk = args.out[1], &dv = args.out[2];
  for_each_head(p, q, k, [&](const Head& at, int64_t h) {
    const auto size = static_cast<size_t>(at.keys * at.width);
    std::vector<double> sum_k(size), sum_v(size), sum_q(static_cast<size_t>(at.width));
    for (int64_t i = 0; i < at.queries; ++i) {
      const double delta = at.dot(dout, i, o, i),
                   log_sum = double{lse.as<float>()[lse.spec.offset(at.n, h * at.queries + i)]};
      std::fill(sum_q.begin(), sum_q.end(), 0.0);
      for (int64_t j = 0; j < at.keys; ++j) {
        const double weight = std::exp(at.scale * at.dot(q, i, k, j) - log_sum);
        const double ds = at.scale * weight * (at.dot(dout, i, v, j) - delta);
        for (int64_t c = 0; c < at.width; ++c) {
          const auto jc = static_cast<size_t>(j * at.width + c);
          sum_q[static_cast<size_t>(c)] += ds * at(k, j, c);
          sum_k[jc] += ds * at(q, i, c);
          sum_v[jc] += weight * at(dout, i, c);
        }
      }
      for (int64_t c = 0; c < at.width; ++c) at.set(dq, i, c, sum_q[static_cast<size_t>(c)]);
    }
    for (int64_t j = 0; j < at.keys; ++j)
      for (int64_t c = 0; c < at.width; ++c) {
        at.set(dk, j, c, sum_k[static_cast<size_t>(j * at.width + c)]);
        at.set(dv, j, c, sum_v[static_cast<size_t>(j * at.width + c)]);
      }
  });
  for (const View& d : args.out) zero_padding_lanes(d);
}

}  // namespace

void add_attention_reference(Registry& r) {
  const auto add = [&](const char* op, auto f) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = true},
           .make = stateless<AttentionParams>(f)});
  };
  add("attention", forward);
  add("attention_grad", gradient);
}

}  // namespace lockstep
