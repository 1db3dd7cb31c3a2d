// SPDX-License-Identifier: Apache-2.0
// All segments in one launch: a table of chunks, a block each. Learning rate, step number, loss and norm are
// read from device memory, so that a captured graph can be replayed. Arithmetic and order as optimizer.h
// says, without fma, so that the bits are the CPU's wherever double's pow and sqrt are.
#include "kernels/optimizer/optimizer.h"

#include <algorithm>

#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/reduce.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

using Kind = OptimizerParams::Kind;
constexpr int kThreads = 256;
constexpr int64_t kStepChunk = 4096, kNormChunk = 8192;  // elements of a block

struct Chunk {
  int64_t begin, end;
  double lr_scale, weight_decay;
};

std::vector<Chunk> chunks(const KernelRequest& r, int64_t length) {
  std::vector<Chunk> all;
  for (const auto& s : r.params.as<OptimizerParams>().segments) {
    LOCKSTEP_ASSERT(0 <= s.begin && s.begin <= s.end && s.end <= r.in[0].shape.elements(),
                    "segment [{}, {}) of an array of {}", s.begin, s.end, r.in[0].shape.elements());
    for (int64_t i = s.begin; i < s.end && !s.frozen; i += length)
      all.push_back({i, std::min(i + length, s.end), s.lr_scale, s.weight_decay});
  }
  return all;
}

__global__ void sum_squares(const float* grads, const Chunk* table, double* sums) {
  const Chunk c = table[blockIdx.x];
  double sum = 0;
  for (int64_t i = c.begin + threadIdx.x; i < c.end; i += blockDim.x)
    sum += double(grads[i]) * double(grads[i]);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block.
__global__ void root_of_sum(const double* sums, int64_t count, float* norm) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) norm[0] = static_cast<float>(sqrt(sum));
}

struct Settings {
  Kind kind;
  bool momentum, nesterov;
  double clip_norm, beta1, beta2;
  float sgd_momentum, sgd_gain, adam_gain1, adam_keep2, adam_gain2, eps;
};

// What is the same for a whole chunk, rounded once from double.
struct Factors {
  float clip, lr, decay;  // sgd: lr; adam: lr / (1 - b1^t)
  float keep, invroot;    // adamw: 1 - lr wd; adam: 1 / sqrt(1 - b2^t)
  float ema_gain;
  bool decays, first, stop;  // stop: the loss is not finite
};

__device__ inline Factors factors_of(const Settings& s, const Chunk& c, const StepState& now, float loss,
                                     float norm) {
  Factors f{};
  f.stop = !(fabsf(loss) < INFINITY);
  double clip = 1;
  if (s.clip_norm > 0) {
    clip = s.clip_norm / (double(norm) + 1e-6);
    clip = clip > 1 ? 1 : clip;  // NaN stays
  }
  f.clip = static_cast<float>(clip);
  const double rate = double(now.lr) * c.lr_scale, t = static_cast<double>(now.step + 1);
  f.decay = static_cast<float>(c.weight_decay);
  f.decays = c.weight_decay != 0;
  f.first = now.step == 0;
  f.ema_gain = now.ema_gain;
  if (s.kind == Kind::sgd) {
    f.lr = static_cast<float>(rate);
  } else {
    f.lr = static_cast<float>(rate / (1 - pow(s.beta1, t)));
    f.keep = static_cast<float>(1 - rate * c.weight_decay);
    f.invroot = static_cast<float>(1 / sqrt(1 - pow(s.beta2, t)));
  }
  return f;
}

__device__ __forceinline__ float averaged(const Factors& f, float ema, float p) {
  return __fsub_rn(ema, __fmul_rn(f.ema_gain, __fsub_rn(ema, p)));
}

__device__ __forceinline__ void step_element(const Settings& s, const Factors& f, float g, float& p, float& m,
                                             float& v) {
  g = __fmul_rn(g, f.clip);
  if (f.decays && s.kind == Kind::adamw)
    p = __fmul_rn(p, f.keep);
  else if (f.decays)
    g = __fadd_rn(g, __fmul_rn(f.decay, p));
  if (s.kind == Kind::sgd) {
    if (s.momentum) {
      m = f.first ? g : __fadd_rn(__fmul_rn(s.sgd_momentum, m), __fmul_rn(s.sgd_gain, g));
      g = s.nesterov ? __fadd_rn(g, __fmul_rn(s.sgd_momentum, m)) : m;
    }
    p = __fsub_rn(p, __fmul_rn(f.lr, g));
    return;
  }
  m = __fadd_rn(m, __fmul_rn(s.adam_gain1, __fsub_rn(g, m)));
  v = __fadd_rn(__fmul_rn(s.adam_keep2, v), __fmul_rn(__fmul_rn(s.adam_gain2, g), g));
  const float root = __fadd_rn(__fmul_rn(__fsqrt_rn(v), f.invroot), s.eps);
  p = __fsub_rn(p, __fdiv_rn(__fmul_rn(f.lr, m), root));
}

// Null where there is none.
struct Arrays {
  float *params, *m, *v, *ema;
  bf16* half;
};

__global__ void step_chunks(const Chunk* table, Settings s, const float* grads, const StepState* state,
                            const float* metrics, const float* norm, Arrays a) {
  const Chunk c = table[blockIdx.x];
  __shared__ Factors shared;
  if (threadIdx.x == 0) shared = factors_of(s, c, *state, metrics[0], s.clip_norm > 0 ? norm[0] : 0.0f);
  __syncthreads();
  const Factors f = shared;
  if (f.stop) return;
  // Four at a time from the first multiple of four on; the rest one by one.
  const int64_t first = min((c.begin + 3) / 4 * 4, c.end), last = max(c.end / 4 * 4, first);
  const auto one = [&](int64_t i) {
    float p = a.params[i], m = a.m ? a.m[i] : 0.0f, v = a.v ? a.v[i] : 0.0f;
    step_element(s, f, grads[i], p, m, v);
    a.params[i] = p;
    if (a.m) a.m[i] = m;
    if (a.v) a.v[i] = v;
    if (a.ema) a.ema[i] = averaged(f, a.ema[i], p);
    if (a.half) a.half[i] = bf16(p);
  };
  const int64_t thread = threadIdx.x;
  if (c.begin + thread < first) one(c.begin + thread);
  if (last + thread < c.end) one(last + thread);
  for (int64_t i = first + thread * 4; i < last; i += int64_t{4} * blockDim.x) {
    const Vector<float> g = load16(grads + i);
    Vector<float> p = load16(a.params + i), m{}, v{};
    if (a.m) m = load16(a.m + i);
    if (a.v) v = load16(a.v + i);
    for (int k = 0; k < 4; ++k) step_element(s, f, g[k], p[k], m[k], v[k]);
    store16(a.params + i, p);
    if (a.m) store16(a.m + i, m);
    if (a.v) store16(a.v + i, v);
    if (a.ema) {
      Vector<float> ema = load16(a.ema + i);
      for (int k = 0; k < 4; ++k) ema[k] = averaged(f, ema[k], p[k]);
      store16(a.ema + i, ema);
    }
    if (a.half) {
      uint64_t four = 0;
      for (int k = 0; k < 4; ++k) four |= uint64_t{bf16(p[k]).bits} << (16 * k);
      store_bytes<8>(a.half + i, four);
    }
  }
}

template <class T>
__global__ void copy(const T* from, T* to, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from[i];
}

class GradNorm final : public Kernel {
 public:
  explicit GradNorm(const KernelRequest& r) : table_(chunks(r, kNormChunk)) {}
  int64_t workspace_bytes() const override { return table_.size() * static_cast<int64_t>(sizeof(double)); }
  void run(const KernelArgs& args) override {
    auto* sums = static_cast<double*>(args.workspace);
    launch(sum_squares, static_cast<unsigned>(table_.size()), kThreads, 0, args.stream,
           args.in[0].as<const float>(), table_.data(), sums);
    launch(root_of_sum, 1, kThreads, 0, args.stream, sums, table_.size(), args.out[0].as<float>());
  }

 private:
  DeviceTable<Chunk> table_;
};

class OptimizerStep final : public Kernel {
 public:
  explicit OptimizerStep(const KernelRequest& r)
      : p_(r.params.as<OptimizerParams>()), table_(chunks(r, kStepChunk)) {
    const auto& p = p_;
    settings_ = {p.kind,
                 p.momentum != 0,
                 p.nesterov,
                 p.clip_norm,
                 p.beta1,
                 p.beta2,
                 static_cast<float>(p.momentum),
                 static_cast<float>(1 - p.dampening),
                 static_cast<float>(1 - p.beta1),
                 static_cast<float>(p.beta2),
                 static_cast<float>(1 - p.beta2),
                 static_cast<float>(p.eps)};
  }
  void run(const KernelArgs& args) override {
    const int64_t length = args.in[0].dim(0);
    for (size_t i = 0; i < args.out.size(); ++i)
      if (const View& from = args.in[i == 0 ? 0 : i + 4]; from.data != args.out[i].data) {
        if (from.spec.dtype == DType::bf16)
          launch(copy<bf16>, blocks(length, kThreads), kThreads, 0, args.stream, from.as<const bf16>(),
                 args.out[i].as<bf16>(), length);
        else
          launch(copy<float>, blocks(length, kThreads), kThreads, 0, args.stream, from.as<const float>(),
                 args.out[i].as<float>(), length);
      }
    const auto output = [&](bool there, size_t i) { return there ? args.out[i].as<float>() : nullptr; };
    const Arrays arrays{args.out[0].as<float>(), output(p_.state_count() > 0, 1),
                        output(p_.state_count() > 1, 2), output(p_.ema, p_.ema_output()),
                        p_.half ? args.out[p_.half_output()].as<bf16>() : nullptr};
    launch(step_chunks, static_cast<unsigned>(table_.size()), kThreads, 0, args.stream, table_.data(),
           settings_, args.in[1].as<const float>(), args.in[2].as<const StepState>(),
           args.in[3].as<const float>(), args.in[4].as<const float>(), arrays);
  }

 private:
  OptimizerParams p_;
  DeviceTable<Chunk> table_;
  Settings settings_{};
};

}  // namespace

void register_optimizer(Registry& r, Device device) {
  const auto add = [&](const char* op, DType dtype, auto make) {
    r.add({.op = op,
           .name = "chunks",
           .device = device,
           .layout = LayoutClass::plain,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = true},
           .make = make});
  };
  add("grad_norm", DType::f32, [](const KernelRequest& q) { return std::make_unique<GradNorm>(q); });
  for (DType dtype : {DType::f32, DType::bf16})  // bf16: with the copy
    add("optimizer_step", dtype, [dtype](const KernelRequest& q) -> std::unique_ptr<Kernel> {
      if (q.params.as<OptimizerParams>().half != (dtype == DType::bf16)) return nullptr;
      return std::make_unique<OptimizerStep>(q);
    });
}

}  // namespace lockstep::LOCKSTEP_DEVICE
