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
  bool causal;

  float& element(const View& x, int64_t token, int64_t c) const {
    const TokenSizes s(x.spec);
    const int64_t channel = first + c;
    const bool tokens = x.shape().rank() == 3;
    return x
        .as<float>()[x.spec.offset(n, tokens ? token * s.channels + channel : channel * s.tokens + token)];
  }
  double operator()(const View& x, int64_t token, int64_t c) const { return double{element(x, token, c)}; }
  void set(const View& x, int64_t token, int64_t c, double value) const {
    element(x, token, c) = static_cast<float>(value);
  }
  // Keys that query i meets.
  int64_t met(int64_t i) const { return causal ? std::min(keys, i + 1) : keys; }
  double dot(const View& x, int64_t i, const View& y, int64_t j) const {
    double sum = 0;
    for (int64_t c = 0; c < width; ++c) sum += (*this)(x, i, c) * (*this)(y, j, c);
    return sum;
  }
};

template <class F>
void for_each_head(const AttentionParams& p, const View& q, const View& k, F f) {
  const int64_t width = TokenSizes(q.spec).channels / p.heads;
  for (int64_t n = 0; n < q.dim(0); ++n)
    for (int64_t h = 0; h < p.heads; ++h)
      f(Head{n, h * width, TokenSizes(q.spec).tokens, TokenSizes(k.spec).tokens, width, double{p.scale},
             p.causal},
        h);
}

void forward(const AttentionParams& p, const KernelArgs& args) {
  const View &q = args.in[0], &k = args.in[1], &v = args.in[2], &o = args.out[0], &lse = args.out[1];
  for_each_head(p, q, k, [&](const Head& at, int64_t h) {
    std::vector<double> s, sum(static_cast<size_t>(at.width));
    for (int64_t i = 0; i < at.queries; ++i) {
      s.resize(static_cast<size_t>(at.met(i)));
      for (int64_t j = 0; j < at.met(i); ++j) s[static_cast<size_t>(j)] = at.scale * at.dot(q, i, k, j);
      const double most = *std::max_element(s.begin(), s.end());
      double total = 0;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t j = 0; j < at.met(i); ++j) {
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
      for (int64_t j = 0; j < at.met(i); ++j) {
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
