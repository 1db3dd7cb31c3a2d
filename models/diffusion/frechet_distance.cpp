#include "models/diffusion/frechet_distance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/error.h"

namespace lockstep::diffusion {
namespace {

// A square matrix of doubles, row after row.
struct Matrix {
  size_t n = 0;
  std::vector<double> values;

  explicit Matrix(size_t size) : n(size), values(size * size) {}
  double* row(size_t i) { return values.data() + i * n; }
  const double* row(size_t i) const { return values.data() + i * n; }
};

// a' = cos a - sin b, b' = sin a + cos b.
void rotate(double* a, double* b, size_t n, double cos, double sin) {
  for (size_t k = 0; k < n; ++k) {
    const double x = a[k], y = b[k];
    a[k] = cos * x - sin * y;
    b[k] = sin * x + cos * y;
  }
}

struct Eigen {
  std::vector<double> values;
  Matrix vectors;  // a row each
};

// Of a symmetric matrix, by cyclic Jacobi rotations (Golub, Van Loan, "Matrix Computations", section 8.5):
// simple, and as exact as the matrix deserves. Sweeps end when nothing off the diagonal counts beside the
// matrix's norm.
Eigen eigen_of(Matrix a) {
  const size_t n = a.n;
  Eigen e{std::vector<double>(n), Matrix(n)};
  for (size_t i = 0; i < n; ++i) e.vectors.row(i)[i] = 1;
  double norm = 0;
  for (double x : a.values) norm += x * x;
  const double negligible = std::numeric_limits<double>::epsilon() * std::sqrt(norm) / static_cast<double>(n);
  constexpr int kMostSweeps = 60;  // it converges quadratically: some ten for hundreds of rows
  for (int sweep = 0, rotations = 1; rotations > 0; ++sweep) {
    LOCKSTEP_ASSERT(sweep < kMostSweeps, "no eigenvalues of {} rows after {} sweeps", n, sweep);
    rotations = 0;
    for (size_t p = 0; p + 1 < n; ++p)
      for (size_t q = p + 1; q < n; ++q) {
        const double apq = a.row(p)[q];
        if (!(std::abs(apq) > negligible)) continue;
        ++rotations;
        // The smaller of the two angles that make element (p, q) zero.
        const double tau = (a.row(q)[q] - a.row(p)[p]) / (2 * apq);
        const double tan = std::copysign(1, tau) / (std::abs(tau) + std::hypot(1, tau));
        const double cos = 1 / std::hypot(1, tan), sin = tan * cos;
        const double app = a.row(p)[p] - tan * apq, aqq = a.row(q)[q] + tan * apq;
        rotate(a.row(p), a.row(q), n, cos, sin);
        for (size_t k = 0; k < n; ++k) a.row(k)[p] = a.row(p)[k], a.row(k)[q] = a.row(q)[k];
        a.row(p)[p] = app, a.row(q)[q] = aqq;
        a.row(p)[q] = a.row(q)[p] = 0;
        rotate(e.vectors.row(p), e.vectors.row(q), n, cos, sin);
      }
  }
  for (size_t i = 0; i < n; ++i) e.values[i] = a.row(i)[i];
  return e;
}

// Rounding makes eigenvalues of a singular matrix a little negative.
double root(double eigenvalue) { return std::sqrt(std::max(eigenvalue, 0.0)); }

// The symmetric square root of a covariance.
Matrix root_of(const Matrix& a) {
  const Eigen e = eigen_of(a);
  Matrix r(a.n);
  for (size_t v = 0; v < a.n; ++v) {
    const double s = root(e.values[v]);
    const double* x = e.vectors.row(v);
    for (size_t i = 0; i < a.n; ++i)
      for (size_t j = 0; j < a.n; ++j) r.row(i)[j] += s * x[i] * x[j];
  }
  return r;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.n);
  for (size_t i = 0; i < a.n; ++i)
    for (size_t k = 0; k < a.n; ++k)
      for (size_t j = 0; j < a.n; ++j) c.row(i)[j] += a.row(i)[k] * b.row(k)[j];
  return c;
}

Matrix covariance_of(const Gaussian& g) {
  Matrix m(g.mean.size());
  m.values = g.covariance;
  return m;
}

}  // namespace

Gaussian gaussian_of(std::span<const float> vectors, int64_t width) {
  const auto n = static_cast<size_t>(width), count = vectors.size() / n;
  LOCKSTEP_ASSERT(width > 0 && vectors.size() == count * n && count >= 2);
  Gaussian g{std::vector<double>(n), std::vector<double>(n * n)};
  for (size_t i = 0; i < vectors.size(); ++i) g.mean[i % n] += double{vectors[i]};
  for (double& m : g.mean) m /= static_cast<double>(count);
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
  // A B is not symmetric, but A^(1/2) B A^(1/2) is, and has the same eigenvalues: the trace of the root of
  // either is the sum of their roots.
  const Matrix root_a = root_of(covariance_of(a));
  const Eigen e = eigen_of(product(product(root_a, covariance_of(b)), root_a));
  double distance = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = a.mean[i] - b.mean[i];
    distance += d * d + a.covariance[i * n + i] + b.covariance[i * n + i] - 2 * root(e.values[i]);
  }
  return distance;
}

}  // namespace lockstep::diffusion
