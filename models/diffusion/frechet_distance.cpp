// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/frechet_distance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/error.h"

namespace lockstep::diffusion {
namespace {

// Doubles, row after row.
struct Matrix {
  size_t rows, columns;
  std::vector<double> values;

  Matrix(size_t r, size_t c) : rows(r), columns(c), values(r * c) {}
  double* row(size_t i) { return values.data() + i * columns; }
  const double* row(size_t i) const { return values.data() + i * columns; }
};

void add_scaled(double factor, const double* x, double* to, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] += factor * x[i];
}

// G with A = G G', one column for each dimension in which A varies: Cholesky's factor with the largest
// remaining pivot next (Golub, Van Loan, "Matrix Computations", 4th ed., section 4.2.8), which singular
// matrices have too. Its rows are in A's order.
Matrix factor_of(const std::vector<double>& a, size_t n) {
  std::vector<double> left(n);  // diagonal of A - G G'
  for (size_t i = 0; i < n; ++i) left[i] = a[i * n + i];
  const double negligible = std::numeric_limits<double>::epsilon() * static_cast<double>(n) *
                            (n > 0 ? *std::max_element(left.begin(), left.end()) : 0);
  Matrix columns(n, n);  // G', of which the first `rank` rows are used
  size_t rank = 0;
  for (; rank < n; ++rank) {
    const auto pivot = static_cast<size_t>(std::max_element(left.begin(), left.end()) - left.begin());
    if (!(left[pivot] > negligible)) break;
    double* g = columns.row(rank);
    std::copy_n(a.data() + pivot * n, n, g);
    for (size_t k = 0; k < rank; ++k) add_scaled(-columns.row(k)[pivot], columns.row(k), g, n);
    const double root = std::sqrt(left[pivot]);
    for (size_t i = 0; i < n; ++i) g[i] /= root, left[i] -= g[i] * g[i];
    left[pivot] = 0;  // exactly, so that it is taken once
  }
  Matrix g(n, rank);
  for (size_t i = 0; i < n; ++i)
    for (size_t k = 0; k < rank; ++k) g.row(i)[k] = columns.row(k)[i];
  return g;
}

// G' B G.
Matrix congruent(const Matrix& g, const std::vector<double>& b) {
  Matrix bg(g.rows, g.columns), c(g.columns, g.columns);
  for (size_t i = 0; i < g.rows; ++i)
    for (size_t j = 0; j < g.rows; ++j) add_scaled(b[i * g.rows + j], g.row(j), bg.row(i), g.columns);
  for (size_t j = 0; j < g.rows; ++j)
    for (size_t k = 0; k < g.columns; ++k) add_scaled(g.row(j)[k], bg.row(j), c.row(k), g.columns);
  return c;
}

struct Tridiagonal {
  std::vector<double> diagonal, beside;  // beside[i] joins i and i + 1
};

// Householder's reflections (Golub, Van Loan, section 8.3.1), which keep the eigenvalues.
Tridiagonal tridiagonal_of(Matrix a) {
  const size_t n = a.rows;
  Tridiagonal t{std::vector<double>(n), std::vector<double>(n)};
  std::vector<double> v(n), w(n);
  for (size_t k = 0; k < n; ++k) {
    t.diagonal[k] = a.row(k)[k];
    if (k + 1 == n) break;
    double norm = 0;
    for (size_t i = k + 1; i < n; ++i) norm = std::hypot(norm, v[i] = a.row(k)[i]);
    t.beside[k] = -std::copysign(norm, v[k + 1]);
    if (norm == 0) continue;
    v[k + 1] -= t.beside[k];
    double square = 0;
    for (size_t i = k + 1; i < n; ++i) square += v[i] * v[i];
    const size_t left = n - k - 1;
    std::fill(w.begin(), w.end(), 0);
    for (size_t i = k + 1; i < n; ++i)
      add_scaled(2 * v[i] / square, a.row(i) + k + 1, w.data() + k + 1, left);
    double vw = 0;
    for (size_t i = k + 1; i < n; ++i) vw += v[i] * w[i];
    add_scaled(-vw / square, v.data() + k + 1, w.data() + k + 1, left);
    for (size_t i = k + 1; i < n; ++i) {
      add_scaled(-v[i], w.data() + k + 1, a.row(i) + k + 1, left);
      add_scaled(-w[i], v.data() + k + 1, a.row(i) + k + 1, left);
    }
  }
  return t;
}

// By implicit QR steps with Wilkinson's shift (Golub, Van Loan, section 8.3.3), from the last one up.
std::vector<double> eigenvalues_of(Matrix a) {
  const size_t n = a.rows;
  Tridiagonal t = tridiagonal_of(std::move(a));
  std::vector<double>&d = t.diagonal, &e = t.beside;
  const auto joined = [&](size_t i) {  // i and i + 1
    return std::abs(e[i]) > std::numeric_limits<double>::epsilon() * (std::abs(d[i]) + std::abs(d[i + 1]));
  };
  // Two steps an eigenvalue are usual.
  for (size_t last = n, steps = 0; last-- > 1;)
    for (; joined(last - 1); ++steps) {
      LOCKSTEP_ASSERT(steps < 60 * n, "no eigenvalues of {} rows after {} steps", n, steps);
      size_t first = last - 1;
      while (first > 0 && joined(first - 1)) --first;
      const double half = (d[last - 1] - d[last]) / 2, off = e[last - 1];
      const double shift = d[last] - off * off / (half + std::copysign(std::hypot(half, off), half));
      double x = d[first] - shift, z = e[first];
      for (size_t k = first; k < last; ++k) {
        // Turns (x, z) into (r, 0), and z's place moves one on.
        const double r = std::hypot(x, z), cos = r > 0 ? x / r : 1, sin = r > 0 ? z / r : 0;
        if (k > first) e[k - 1] = r;
        const double p = d[k], q = d[k + 1], pq = e[k];
        d[k] = cos * cos * p + 2 * cos * sin * pq + sin * sin * q;
        d[k + 1] = sin * sin * p - 2 * cos * sin * pq + cos * cos * q;
        e[k] = (cos * cos - sin * sin) * pq + cos * sin * (q - p);
        x = e[k];
        if (k + 1 < last) z = sin * e[k + 1], e[k + 1] *= cos;
      }
    }
  return d;
}

}  // namespace

Gaussian gaussian_of(std::span<const float> vectors, int64_t width) {
  const auto n = static_cast<size_t>(width), count = vectors.size() / n;
  LOCKSTEP_ASSERT(width > 0 && vectors.size() == count * n && count >= 2);
  Gaussian g{std::vector<double>(n), std::vector<double>(n * n)};
  for (size_t i = 0; i < vectors.size(); ++i) g.mean[i % n] += double{vectors[i]};
  for (double& m : g.mean) m /= static_cast<double>(count);
  if (!std::all_of(g.mean.begin(), g.mean.end(), [](double m) { return std::isfinite(m); }))
    throw Error(Exit::diverged, "E_NOT_FINITE", "what the network reads in the images is not finite");
  std::vector<double> d(n);
  for (size_t v = 0; v < count; ++v) {
    for (size_t i = 0; i < n; ++i) d[i] = double{vectors[v * n + i]} - g.mean[i];
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) g.covariance[i * n + j] += d[i] * d[j];
  }
  for (double& c : g.covariance) c /= static_cast<double>(count - 1);
  return g;
}

double frechet_distance(const Gaussian& a, const Gaussian& b) {
  const size_t n = a.mean.size();
  LOCKSTEP_ASSERT(b.mean.size() == n && a.covariance.size() == n * n && b.covariance.size() == n * n);
  // With A = G G', the matrix G' B G is symmetric and has A B's eigenvalues other than 0: the trace of A B's
  // root is the sum of their roots.
  double distance = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = a.mean[i] - b.mean[i];
    distance += d * d + a.covariance[i * n + i] + b.covariance[i * n + i];
  }
  // Rounding makes eigenvalues of a singular matrix a little negative.
  for (const double value : eigenvalues_of(congruent(factor_of(a.covariance, n), b.covariance)))
    distance -= 2 * std::sqrt(std::max(value, 0.0));
  return distance;
}

}  // namespace lockstep::diffusion
