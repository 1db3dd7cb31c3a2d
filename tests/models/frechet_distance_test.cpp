// SPDX-License-Identifier: Apache-2.0
// The Fréchet distance where it has a closed form.
#include "models/diffusion/frechet_distance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/support/files.h"

namespace lockstep::diffusion::frechet_distance_test {
namespace {

// Rounding of O(width) sums in double, beside values of about one; roots of zero eigenvalues, which rounding
// leaves at 1e-16, come out at 1e-8 each.
constexpr double kRegular = 1e-12, kSingular = 1e-6;

std::vector<float> normal_vectors(size_t count, size_t width, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count * width);
  for (float& v : x) v = normal(bits);
  return x;
}

// Of an n x n matrix with orthonormal rows: reflection by a vector of these numbers.
std::vector<double> reflection(const std::vector<double>& v) {
  const size_t n = v.size();
  double square = 0;
  for (double x : v) square += x * x;
  std::vector<double> q(n * n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) q[i * n + j] = (i == j) - 2 * v[i] * v[j] / square;
  return q;
}

// Covariance with these eigenvalues along the rows of q.
Gaussian along(const std::vector<double>& q, const std::vector<double>& eigenvalues,
               std::vector<double> mean) {
  const size_t n = eigenvalues.size();
  Gaussian g{std::move(mean), std::vector<double>(n * n)};
  for (size_t e = 0; e < n; ++e)
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) g.covariance[i * n + j] += eigenvalues[e] * q[e * n + i] * q[e * n + j];
  return g;
}

TEST(GaussianOf, HasTheMeanAndTheUnbiasedCovariance) {
  const std::vector<float> x = {1, 10, 2, 10, 6, 16};  // three vectors
  const Gaussian g = gaussian_of(x, 2);
  EXPECT_EQ(g.mean, (std::vector<double>{3, 12}));
  EXPECT_EQ(g.covariance, (std::vector<double>{7, 9, 9, 12}));
  // Two passes: a large mean costs no digits.
  std::vector<float> far = x;
  for (float& v : far) v += 1e6F;
  EXPECT_EQ(gaussian_of(far, 2).covariance, g.covariance);
}

TEST(GaussianOf, RefusesWhatIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")})
    testing::expect_error(
        Exit::diverged,
        [&] {
          gaussian_of(std::vector<float>{1, 10, 2, bad, 6, 16}, 2);
        },
        "E_NOT_FINITE");
}

TEST(FrechetDistance, OfEqualSetsIsZeroAndOfShiftedOnesTheShiftSquared) {
  for (const size_t width : {1u, 2u, 7u, 50u}) {
    std::vector<float> x = normal_vectors(200, width, 1);
    const Gaussian a = gaussian_of(x, static_cast<int64_t>(width));
    EXPECT_NEAR(frechet_distance(a, a), 0, kRegular * static_cast<double>(width)) << width;
    for (size_t i = 0; i < x.size(); i += width) x[i] += 3;
    // The floats are rounded again by the shift, which their distance takes in squares.
    EXPECT_NEAR(frechet_distance(a, gaussian_of(x, static_cast<int64_t>(width))), 9, 1e-6) << width;
  }
}

TEST(FrechetDistance, OfCommutingCovariancesIsThatOfTheirRoots) {
  const auto q = reflection({1, -2, 0.5, 3});
  const std::vector<double> a = {4, 1, 0.25, 9}, b = {1, 1, 2.25, 0.01};
  double expected = 4 + 1;  // of the means
  for (size_t i = 0; i < a.size(); ++i) expected += std::pow(std::sqrt(a[i]) - std::sqrt(b[i]), 2);
  EXPECT_NEAR(frechet_distance(along(q, a, {0, 0, 1, 5}), along(q, b, {0, 2, 1, 4})), expected,
              kRegular * 10);
}

// [[2, 1], [1, 2]] and diag(1, 4): the product has trace 10 and determinant 12, so the roots of its
// eigenvalues add up to sqrt(10 + 2 sqrt 12).
TEST(FrechetDistance, OfCovariancesThatDoNotCommute) {
  const Gaussian a{{0, 0}, {2, 1, 1, 2}}, b{{0, 0}, {1, 0, 0, 4}};
  const double expected = 4 + 5 - 2 * std::sqrt(10 + 2 * std::sqrt(12.0));
  EXPECT_NEAR(frechet_distance(a, b), expected, kRegular);
  EXPECT_NEAR(frechet_distance(b, a), expected, kRegular);
}

TEST(FrechetDistance, OfSingularCovariances) {
  const auto q = reflection({2, 1, -1});
  const std::vector<double> a = {4, 0, 0}, b = {1, 9, 0};
  EXPECT_NEAR(frechet_distance(along(q, a, {0, 0, 0}), along(q, b, {0, 0, 0})), 1 + 9, kSingular);
  // No variance at all, and more dimensions than vectors.
  EXPECT_NEAR(frechet_distance({{1, 1}, {0, 0, 0, 0}}, {{1, 3}, {0, 0, 0, 0}}), 4, 0);
  const Gaussian few = gaussian_of(normal_vectors(8, 20, 2), 20);
  EXPECT_NEAR(frechet_distance(few, few), 0, kSingular * 20);
}

// With B = 4 A, (A B)^(1/2) is 2 A; with fewer vectors than features too.
TEST(FrechetDistance, OfWideFeatures) {
  for (const auto& [width, count] : {std::pair<size_t, size_t>{128, 1000}, {400, 150}}) {
    const Gaussian a = gaussian_of(normal_vectors(count, width, 3), static_cast<int64_t>(width));
    Gaussian b = a;
    for (double& c : b.covariance) c *= 4;
    double trace = 0;
    for (size_t i = 0; i < width; ++i) trace += a.covariance[i * width + i];
    EXPECT_NEAR(frechet_distance(a, b), trace, kRegular * trace) << width;
  }
}

}  // namespace
}  // namespace lockstep::diffusion::frechet_distance_test
