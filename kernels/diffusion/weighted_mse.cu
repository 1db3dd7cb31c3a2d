// SPDX-License-Identifier: Apache-2.0
// weighted_mse on a GPU: a block sums a slice of a sample, one block adds the slices sample by sample, in
// double and in a fixed order. A slice's length is a constant: a sample's sum does not depend on the batch.
#include "kernels/core/step_state.h"
#include "kernels/diffusion/weighted_mse.h"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/reduce.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kMseThreads = 256;
constexpr int64_t kMseSlice = 16 * kMseThreads;  // elements

// sums[n * slices + slice]; one block each.
template <class T>
__global__ void sum_squares(const T* pred, const float* target, double* sums, int64_t elements,
                            int64_t slices) {
  const int64_t n = blockIdx.x / slices, first = blockIdx.x % slices * kMseSlice;
  const int64_t end = first + kMseSlice < elements ? first + kMseSlice : elements;
  double sum = 0;
  for (int64_t e = first + threadIdx.x; e < end; e += kMseThreads) {
    const double error = double{__fsub_rn(float(pred[n * elements + e]), target[n * elements + e])};
    sum += error * error;
  }
  sum = block_sum<kMseThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block.
__global__ void sum_weighted(const double* sums, const float* weights, float* metrics, int64_t samples,
                             int64_t elements, int64_t slices) {
  double loss = 0;
  for (int64_t n = threadIdx.x; n < samples; n += kMseThreads) {
    double sum = 0;
    for (int64_t s = 0; s < slices; ++s) sum += sums[n * slices + s];
    loss += double{weights[n]} * (sum / static_cast<double>(elements));
  }
  loss = block_sum<kMseThreads>(loss);
  if (threadIdx.x == 0) metrics[0] = static_cast<float>(loss), metrics[1] = static_cast<float>(samples);
}

template <class T>
__global__ void weighted_mse_grad(const T* pred, const float* target, const float* weights,
                                  const StepState* state, T* dpred, int64_t count, int64_t elements) {
  const int64_t i = int64_t{blockIdx.x} * kMseThreads + threadIdx.x;
  if (i >= count) return;
  const double scale = 2 / (static_cast<double>(elements) * static_cast<double>(state->global_samples));
  const auto factor = static_cast<float>(double{weights[i / elements]} * scale);
  dpred[i] = T(__fmul_rn(factor, __fsub_rn(float(pred[i]), target[i])));
}

template <class T>
class WeightedMse final : public Kernel {
 public:
  explicit WeightedMse(const KernelRequest& r)
      : samples_(r.in[0].shape[0]),
        elements_(r.in[0].shape.elements_from(1)),
        slices_((elements_ + kMseSlice - 1) / kMseSlice) {}
  int64_t workspace_bytes() const override {
    return samples_ * slices_ * static_cast<int64_t>(sizeof(double));
  }
  void run(const KernelArgs& args) override {
    auto* sums = static_cast<double*>(args.workspace);
    launch(sum_squares<T>, static_cast<unsigned>(samples_ * slices_), kMseThreads, 0, args.stream,
           args.in[0].as<const T>(), args.in[1].as<const float>(), sums, elements_, slices_);
    launch(sum_weighted, 1, kMseThreads, 0, args.stream, sums, args.in[2].as<const float>(),
           args.out[0].as<float>(), samples_, elements_, slices_);
  }

 private:
  int64_t samples_, elements_, slices_;
};

template <class T>
void run_weighted_mse_grad(const NoParams&, const KernelArgs& args) {
  const View& pred = args.in[0];
  const int64_t count = pred.shape().elements();
  launch(weighted_mse_grad<T>, blocks(count, kMseThreads), kMseThreads, 0, args.stream, pred.as<const T>(),
         args.in[1].as<const float>(), args.in[2].as<const float>(), args.in[3].as<const StepState>(),
         args.out[0].as<T>(), count, pred.shape().elements_from(1));
}

template <class T>
void add_weighted_mse(Registry& r, Device device) {
  const auto add = [&](const char* op, const char* kernel, bool shard, auto make) {
    r.add({.op = op,
           .name = kernel,
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [make](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return q.in[0].dtype == dtype_of<T> && q.in[0].layout != Layout::lanes ? make(q) : nullptr;
           }});
  };
  add("weighted_mse", "slices", false,
      [](const KernelRequest& q) { return std::make_unique<WeightedMse<T>>(q); });
  add("weighted_mse_grad", "direct", true, stateless<NoParams>(run_weighted_mse_grad<T>));
}

}  // namespace

void register_weighted_mse(Registry& r, Device device) {
  add_weighted_mse<float>(r, device);
  add_weighted_mse<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
