// SPDX-License-Identifier: Apache-2.0
// Count, mean and sum of squared deviations of a set of numbers, in double.
#pragma once

namespace lockstep {

struct Moments {
  double count = 0, mean = 0, m2 = 0;

  // Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
  void merge(const Moments& o) {
    if (o.count == 0) return;
    const double delta = o.mean - mean, total = count + o.count;
    mean += delta * (o.count / total);
    m2 += o.m2 + delta * delta * (count * (o.count / total));
    count = total;
  }
};

// `width` sets of `count` numbers each.
inline Moments merge_columns(const double* mean, const double* m2, int width, double count) {
  Moments all{count * width, 0, 0};
  for (int i = 0; i < width; ++i) all.mean += mean[i];
  all.mean /= width;
  double between = 0;
  for (int i = 0; i < width; ++i) {
    all.m2 += m2[i];
    between += (mean[i] - all.mean) * (mean[i] - all.mean);
  }
  all.m2 += count * between;
  return all;
}

}  // namespace lockstep
