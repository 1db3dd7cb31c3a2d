// SPDX-License-Identifier: Apache-2.0
// Losses on a GPU: 8, 16 or 32 lanes of a warp a sample, whose classes they share. The batch is summed by one
// block in double, in a fixed order, from per-sample losses in the workspace.
#include <cmath>

#include "kernels/core/step_state.h"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/reduce.h"
#include "kernels/gpu/vectors.h"
#include "kernels/loss/loss.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 128;
constexpr int kSumThreads = 256;

struct Target {
  float at_label, elsewhere;
};

// One sample's classes, shared by kLanes lanes. Samples past the last have no classes, so that whole warps
// take part in shuffles.
template <class T, int kLanes>
struct Sample {
  int64_t n;
  int lane, classes;
  const T* x;

  __device__ Sample(const T* all, int64_t samples, int classes_)
      : n(int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes),
        lane(static_cast<int>(threadIdx.x % kLanes)),
        classes(n < samples ? classes_ : 0),
        x(all + n * classes_) {}

  __device__ float greatest() const {
    float most = -INFINITY;
    for (int c = lane; c < classes; c += kLanes) most = fmaxf(most, float(x[c]));
    return warp_max<kLanes>(most);
  }
  // log sum exp (x - most); NaN where a value is NaN or +inf, or all are -inf.
  __device__ float log_sum(float most) const {
    float sum = 0;
    for (int c = lane; c < classes; c += kLanes) sum += expf(float(x[c]) - most);
    return logf(warp_sum<kLanes>(sum));
  }
};

template <class T, int kLanes>
__global__ void log_softmax(const T* x, T* y, int64_t samples, int classes) {
  const Sample<T, kLanes> s(x, samples, classes);
  const float most = s.greatest(), log_sum = s.log_sum(most);
  for (int c = s.lane; c < s.classes; c += kLanes) y[s.n * classes + c] = T(float(s.x[c]) - most - log_sum);
}

template <class T, int kLanes>
__global__ void log_softmax_grad(const T* y, const T* dy, T* dx, int64_t samples, int classes) {
  const Sample<T, kLanes> s(y, samples, classes);
  float sum = 0;
  for (int c = s.lane; c < s.classes; c += kLanes) sum += float(dy[s.n * classes + c]);
  sum = warp_sum<kLanes>(sum);
  for (int c = s.lane; c < s.classes; c += kLanes) {
    const int64_t i = s.n * classes + c;
    dx[i] = T(float(dy[i]) - expf(float(y[i])) * sum);
  }
}

// losses[n], and whether the label is the first of the greatest.
template <class T, int kLanes, bool kLogProbs>
__global__ void cross_entropy(const T* x, const int* labels, float* losses, uint8_t* correct, int64_t samples,
                              int classes, Target target) {
  const Sample<T, kLanes> s(x, samples, classes);
  float most = -INFINITY;
  int best = classes, nan = 0;
  for (int c = s.lane; c < s.classes; c += kLanes) {
    const float v = float(s.x[c]);
    nan |= v != v;
    if (best == classes || v > most) most = v, best = c;
  }
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, most, d);
    const int at = __shfl_xor_sync(kAllLanes, best, d);
    nan |= __shfl_xor_sync(kAllLanes, nan, d);
    if (other > most || (other == most && at < best)) most = other, best = at;
  }
  const float shift = kLogProbs ? 0 : nan ? NAN : most;
  const float log_sum = kLogProbs ? 0 : s.log_sum(shift);
  float rest = 0;  // of x - lse
  if (target.elsewhere != 0)
    for (int c = s.lane; c < s.classes; c += kLanes) rest += float(s.x[c]) - shift - log_sum;
  rest = warp_sum<kLanes>(rest);
  if (s.lane != 0 || s.classes == 0) return;
  const int label = labels[s.n];
  float loss = 0;
  const float extra = target.at_label - target.elsewhere;
  if (extra != 0) loss = -extra * (float(s.x[label]) - shift - log_sum);
  if (target.elsewhere != 0) loss -= target.elsewhere * rest;
  losses[s.n] = loss;
  correct[s.n] = static_cast<uint8_t>(!nan && best == label);
}

// One block.
__global__ void sum_losses(const float* losses, const uint8_t* correct, float* metrics, int64_t samples) {
  double sum = 0, right = 0;
  for (int64_t n = threadIdx.x; n < samples; n += kSumThreads) sum += double{losses[n]}, right += correct[n];
  block_sum<kSumThreads>(sum, right);
  if (threadIdx.x == 0) metrics[0] = static_cast<float>(sum), metrics[1] = static_cast<float>(right);
}

template <class T, int kLanes, bool kLogProbs>
__global__ void cross_entropy_grad(const T* x, const int* labels, const StepState* step, T* dx,
                                   int64_t samples, int classes, Target target) {
  const Sample<T, kLanes> s(x, samples, classes);
  const float most = kLogProbs ? 0 : s.greatest(), log_sum = kLogProbs ? 0 : s.log_sum(most);
  if (s.classes == 0) return;
  const float scale = 1.0f / static_cast<float>(step->global_samples);
  const int label = labels[s.n];
  for (int c = s.lane; c < s.classes; c += kLanes) {
    const float softmax = kLogProbs ? 0 : expf(float(s.x[c]) - most - log_sum);
    dx[s.n * classes + c] = T((softmax - (c == label ? target.at_label : target.elsewhere)) * scale);
  }
}

// f(lanes as a constant), for so many classes.
template <class F>
void with_lanes(int64_t classes, F f) {
  if (classes <= 8)
    f(std::integral_constant<int, 8>());
  else if (classes <= 16)
    f(std::integral_constant<int, 16>());
  else
    f(std::integral_constant<int, 32>());
}
unsigned sample_blocks(int64_t samples, int lanes) { return blocks(samples, kThreads / lanes); }

Target target_of(const LossParams& p, int64_t classes) {
  const double elsewhere = double{p.label_smoothing} / static_cast<double>(classes);
  return {static_cast<float>(1 - double{p.label_smoothing} + elsewhere), static_cast<float>(elsewhere)};
}

template <class T>
void run_log_softmax(const NoParams&, const KernelArgs& args) {
  const View& x = args.in[0];
  with_lanes(x.dim(1), [&](auto lanes) {
    launch(log_softmax<T, lanes>, sample_blocks(x.dim(0), lanes), kThreads, 0, args.stream, x.as<T>(),
           args.out[0].as<T>(), x.dim(0), x.dim(1));
  });
}
template <class T>
void run_log_softmax_grad(const NoParams&, const KernelArgs& args) {
  const View& y = args.in[0];
  with_lanes(y.dim(1), [&](auto lanes) {
    launch(log_softmax_grad<T, lanes>, sample_blocks(y.dim(0), lanes), kThreads, 0, args.stream, y.as<T>(),
           args.in[1].as<T>(), args.out[0].as<T>(), y.dim(0), y.dim(1));
  });
}
template <class T>
void run_cross_entropy_grad(const LossParams& p, const KernelArgs& args) {
  const View& x = args.in[0];
  with_lanes(x.dim(1), [&](auto lanes) {
    const auto kernel =
        p.from_log_probs ? cross_entropy_grad<T, lanes, true> : cross_entropy_grad<T, lanes, false>;
    launch(kernel, sample_blocks(x.dim(0), lanes), kThreads, 0, args.stream, x.as<T>(), args.in[1].as<int>(),
           args.in[2].as<StepState>(), args.out[0].as<T>(), x.dim(0), x.dim(1), target_of(p, x.dim(1)));
  });
}

template <class T>
class CrossEntropy final : public Kernel {
 public:
  explicit CrossEntropy(const KernelRequest& r)
      : params_(r.params.as<LossParams>()), samples_(r.in[0].shape[0]) {}
  int64_t workspace_bytes() const override { return samples_ * static_cast<int64_t>(sizeof(float) + 1); }
  void run(const KernelArgs& args) override {
    const View& x = args.in[0];
    const int64_t samples = x.dim(0);
    auto* losses = static_cast<float*>(args.workspace);
    auto* correct = reinterpret_cast<uint8_t*>(losses + samples);
    with_lanes(x.dim(1), [&](auto lanes) {
      const auto kernel =
          params_.from_log_probs ? cross_entropy<T, lanes, true> : cross_entropy<T, lanes, false>;
      launch(kernel, sample_blocks(samples, lanes), kThreads, 0, args.stream, x.as<T>(), args.in[1].as<int>(),
             losses, correct, samples, x.dim(1), target_of(params_, x.dim(1)));
    });
    launch(sum_losses, 1, kSumThreads, 0, args.stream, losses, correct, args.out[0].as<float>(), samples);
  }

 private:
  LossParams params_;
  int64_t samples_;
};

template <class T>
void add(Registry& r, Device device) {
  const auto add_one = [&](const char* op, auto make, bool shard) {
    r.add({.op = op,
           .name = "warp",
           .device = device,
           .layout = LayoutClass::plain,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [make](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return q.in[0].dtype == dtype_of<T> ? make(q) : nullptr;
           }});
  };
  add_one("log_softmax", stateless<NoParams>(run_log_softmax<T>), true);
  add_one("log_softmax_grad", stateless<NoParams>(run_log_softmax_grad<T>), true);
  add_one(
      "cross_entropy", [](const KernelRequest& q) { return std::make_unique<CrossEntropy<T>>(q); }, false);
  add_one("cross_entropy_grad", stateless<LossParams>(run_cross_entropy_grad<T>), true);
}

}  // namespace

void register_loss(Registry& r, Device device) {
  add<float>(r, device);
  add<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
