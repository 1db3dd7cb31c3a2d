// SPDX-License-Identifier: Apache-2.0
// Convolutions for few channels, groups and every layout but lanes: a thread gathers a few channels of one
// pixel; for the weight gradient, a few output channels of one weight.
#include "kernels/gpu/device_code.h"
//
#include "kernels/conv2d/gather.cuh"
#include "kernels/conv2d/gpu.h"
#include "kernels/gpu/activate.cuh"
#include "kernels/gpu/partial_sums.cuh"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

// Where an image's elements lie.
struct Strides {
  int64_t n = 0;
  int c = 0, h = 0, w = 0;
};

Strides strides(const TensorSpec& s) {
  const auto c = static_cast<int>(s.shape[1]), h = static_cast<int>(s.shape[2]),
             w = static_cast<int>(s.shape[3]);
  LOCKSTEP_ASSERT(s.shape.elements_from(1) < int64_t{1} << 31, "an image of {} elements",
                  s.shape.elements_from(1));
  if (s.layout == Layout::nhwc) return {s.shape.elements_from(1), 1, w * c, c};
  return {s.shape.elements_from(1), h * w, w, 1};
}

// Floats from one row of kOut to the next in shared memory: of whole Vector<float>s an odd number, so that
// threads which write one each, of rows side by side, meet in no bank.
template <int kOut>
constexpr int kRowPitch = kOut % 8 == 0 ? kOut + 4 : kOut;

// --- forward and input gradient ---

constexpr int kGatherThreads = 128;
constexpr int kWeightsAtOnce = 256;

struct GatherProblem {
  Gather gather;
  Strides in, out;
  int in_channels = 0, out_channels = 0;  // of one group
  int in_weights = 0, out_weights = 0;    // distances of their weights
  int group_weights = 0;
  Activation activation = Activation::none;
};

// Grid: (places of all images, groups x ceil(out_channels / kOut)).
template <class T, int kOut>
__global__ void __launch_bounds__(kGatherThreads)
    gather_channels(GatherProblem p, const T* in, const T* weights, const float* bias, T* out,
                    int64_t places) {
  constexpr int kPitch = kRowPitch<kOut>;
  __shared__ Vector<float> shared[kWeightsAtOnce * kPitch / 4];
  float* const w = shared[0].v;
  const int tiles = (p.out_channels + kOut - 1) / kOut;
  const int group = static_cast<int>(blockIdx.y) / tiles;
  const int first = (static_cast<int>(blockIdx.y) - group * tiles) * kOut;  // within the group
  const int count = min(kOut, p.out_channels - first);
  const GatherAxis &gh = p.gather.h, &gw = p.gather.w;

  const int64_t place = int64_t{blockIdx.x} * kGatherThreads + threadIdx.x;
  const int64_t n = place / (gh.places * gw.places);
  const int pixel = static_cast<int>(place - n * (gh.places * gw.places));
  const int i = pixel / gw.places, j = pixel - i * gw.places;
  const int h0 = i * gh.step + gh.first, w0 = j * gw.step + gw.first;
  const T* image = in + n * p.in.n + int64_t{group} * p.in_channels * p.in.c;

  float sums[kOut];
#pragma unroll
  for (int o = 0; o < kOut; ++o)
    sums[o] = bias && o < count ? bias[group * p.out_channels + first + o] : 0.0f;

  const T* group_weights = weights + int64_t{group} * p.group_weights + int64_t{first} * p.out_weights;
  const int taps = gh.taps * gw.taps, products = p.in_channels * taps;
  int tap_h = 0, tap_w = 0;  // of the product whose turn it is
  for (int begin = 0; begin < products; begin += kWeightsAtOnce) {
    const int here = min(kWeightsAtOnce, products - begin);
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x); k < here; k += kGatherThreads) {
      const int c = (begin + k) / taps, tap = begin + k - c * taps, r = tap / gw.taps, s = tap - r * gw.taps;
      const T* from = group_weights + int64_t{c} * p.in_weights +
                      (gh.weight_first + r * gh.weight_step) * gw.kernel + gw.weight_first +
                      s * gw.weight_step;
      const auto weight = [&](int o) { return o < count ? float(from[int64_t{o} * p.out_weights]) : 0.0f; };
      if constexpr (kOut % 4 == 0) {
#pragma unroll 1
        for (int o = 0; o < kOut; o += 4) {
          Vector<float> four;
#pragma unroll
          for (int e = 0; e < 4; ++e) four[e] = weight(o + e);
          store16(w + k * kPitch + o, four);
        }
      } else {
        for (int o = 0; o < kOut; ++o) w[k * kPitch + o] = weight(o);
      }
    }
    __syncthreads();
    if (place < places)
      for (int k = 0; k < here; ++k) {
        const int h = h0 + tap_h * gh.tap_step, v = w0 + tap_w * gw.tap_step;
        if (h >= 0 && h < gh.in && v >= 0 && v < gw.in) {
          const float x = float(image[h * p.in.h + v * p.in.w]);
          if constexpr (kOut % 4 == 0) {
#pragma unroll
            for (int o = 0; o < kOut; o += 4) {
              const Vector<float> four = load16(w + k * kPitch + o);
              for (int e = 0; e < 4; ++e) sums[o + e] = fmaf(x, four[e], sums[o + e]);
            }
          } else {
            for (int o = 0; o < kOut; ++o) sums[o] = fmaf(x, w[k * kPitch + o], sums[o]);
          }
        }
        if (++tap_w < gw.taps) continue;
        tap_w = 0;
        if (++tap_h < gh.taps) continue;
        tap_h = 0;
        image += p.in.c;
      }
  }
  if (place >= places) return;
  T* to = out + n * p.out.n + int64_t{i * gh.out_step + gh.out_first} * p.out.h +
          int64_t{j * gw.out_step + gw.out_first} * p.out.w +
          int64_t{group * p.out_channels + first} * p.out.c;
#pragma unroll
  for (int o = 0; o < kOut; ++o)
    if (o < count) to[int64_t{o} * p.out.c] = T(activate(p.activation, sums[o]));
}

// How many channels a thread gathers: as few idle as may be, then as many as may be.
int channels_at_once(int channels) {
  if (channels == 1) return 1;
  int best = 4;
  for (int tile : {8, 12})
    if ((channels + tile - 1) / tile * tile <= (channels + best - 1) / best * best) best = tile;
  return best;
}

template <class T>
void launch_gather(const GatherProblem& p, int groups, int64_t images, const View& in, const View& w,
                   const float* bias, const View& out, void* stream) {
  const int64_t places = images * p.gather.places();
  const auto start = [&](auto tile) {
    constexpr int kOut = decltype(tile)::value;
    const dim3 grid(blocks(places, kGatherThreads),
                    blocks(p.out_channels, kOut) * static_cast<unsigned>(groups));
    launch(gather_channels<T, kOut>, grid, kGatherThreads, 0, stream, p, in.as<const T>(), w.as<const T>(),
           bias, out.as<T>(), places);
  };
  switch (channels_at_once(p.out_channels)) {
    case 1:
      return start(std::integral_constant<int, 1>());
    case 4:
      return start(std::integral_constant<int, 4>());
    case 8:
      return start(std::integral_constant<int, 8>());
    default:
      return start(std::integral_constant<int, 12>());
  }
}

template <class T>
class DirectGather final : public Kernel {
 public:
  DirectGather(std::vector<Gather> gathers, GatherProblem problem, int64_t groups)
      : gathers_(std::move(gathers)), problem_(problem), groups_(static_cast<int>(groups)) {}

  void run(const KernelArgs& args) override {
    const float* bias = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
    for (const Gather& g : gathers_) {
      GatherProblem p = problem_;
      p.gather = g;
      launch_gather<T>(p, groups_, args.in[0].dim(0), args.in[0], args.in[1], bias, args.out[0], args.stream);
    }
  }

 private:
  std::vector<Gather> gathers_;
  GatherProblem problem_;
  int groups_;
};

// --- weight gradient ---

constexpr int kPlacesAtOnce = 64;
constexpr int kWeightRows = 8;  // threads that share a weight, each with its own places

struct WeightGradProblem2d {
  Gather gather;  // the forward one
  Strides x, dy;
  int in_channels = 0, out_channels = 0;  // of one group
  int weights = 0;                        // of one output channel: in_channels x taps
  bool bias = false;                      // counts as one weight more, whose input is 1
  int places = 0;                         // of all images
  int slice = 0;                          // places of a slice
};

// partials[slice][output channel][weight]. Grid: (slices, groups x ceil(out_channels / kOut), ceil(weights /
// 32)).
template <class T, int kOut>
__global__ void __launch_bounds__(32 * kWeightRows, 4)
    weight_grad_slice(WeightGradProblem2d p, const T* x, const T* dy, float* partials) {
  constexpr int kPitch = kRowPitch<kOut>, kGroup = kOut % 4 == 0 ? 4 : 1, kGroups = kOut / kGroup;
  __shared__ int64_t image_at[kPlacesAtOnce];
  __shared__ int row_at[kPlacesAtOnce], column_at[kPlacesAtOnce];
  __shared__ Vector<float> shared_dy[kPlacesAtOnce * kPitch / 4];
  __shared__ float sums_of[kWeightRows][32];
  float* const gradients = shared_dy[0].v;
  const GatherAxis &gh = p.gather.h, &gw = p.gather.w;
  const int tiles = (p.out_channels + kOut - 1) / kOut;
  const int group = static_cast<int>(blockIdx.y) / tiles;
  const int first = (static_cast<int>(blockIdx.y) - group * tiles) * kOut;
  const int count = min(kOut, p.out_channels - first), first_output = group * p.out_channels + first;
  const int thread = static_cast<int>(threadIdx.y * 32 + threadIdx.x);

  const int weights = p.weights + (p.bias ? 1 : 0);
  const int weight = static_cast<int>(blockIdx.z * 32 + threadIdx.x);
  const int taps = gh.taps * gw.taps;
  const int c = weight / taps, tap = weight - c * taps, r = tap / gw.taps, s = tap - r * gw.taps;
  const int dh = r * gh.tap_step, dw = s * gw.tap_step;
  const int64_t channel = int64_t{group * p.in_channels + c} * p.x.c;

  const bool along = p.dy.c == 1;
  const int pitch = along ? kOut : kPitch;
  float sums[kOut];
  for (int o = 0; o < kOut; ++o) sums[o] = 0;
  const int begin = static_cast<int>(blockIdx.x) * p.slice, end = min(p.places, begin + p.slice);
  for (int from = begin; from < end; from += kPlacesAtOnce) {
    const int here = min(kPlacesAtOnce, end - from);
    __syncthreads();
    // Threads side by side take places or, where those lie side by side, channels.
    for (int k = thread; k < here * kGroups; k += 32 * kWeightRows) {
      const int place = along ? k / kGroups : k % here, first_o = (along ? k % kGroups : k / here) * kGroup;
      const int per_image = gh.places * gw.places;
      const int n = (from + place) / per_image, pixel = from + place - n * per_image;
      const int i = pixel / gw.places, j = pixel - i * gw.places;
      const T* const of_place = dy + n * p.dy.n + int64_t{first_output} * p.dy.c + i * p.dy.h + j * p.dy.w;
      const auto gradient = [&](int o) { return o < count ? float(of_place[int64_t{o} * p.dy.c]) : 0.0f; };
      if constexpr (kGroup == 4) {
        Vector<float> four;
#pragma unroll
        for (int e = 0; e < 4; ++e) four[e] = gradient(first_o + e);
        store16(gradients + place * pitch + first_o, four);
      } else {
        gradients[place * pitch + first_o] = gradient(first_o);
      }
      if (first_o == 0) {
        image_at[place] = n * p.x.n;
        row_at[place] = i * gh.step + gh.first, column_at[place] = j * gw.step + gw.first;
      }
    }
    __syncthreads();
    if (weight < weights)
      for (int place = static_cast<int>(threadIdx.y); place < here; place += kWeightRows) {
        float value = 1;
        if (weight < p.weights) {
          const int h = row_at[place] + dh, v = column_at[place] + dw;
          if (h < 0 || h >= gh.in || v < 0 || v >= gw.in) continue;
          value = float(x[image_at[place] + channel + h * p.x.h + v * p.x.w]);
        }
        if constexpr (kOut % 4 == 0) {
#pragma unroll
          for (int o = 0; o < kOut; o += 4) {
            const Vector<float> four = load16(gradients + place * pitch + o);
            for (int e = 0; e < 4; ++e) sums[o + e] = fmaf(value, four[e], sums[o + e]);
          }
        } else {
          for (int o = 0; o < kOut; ++o) sums[o] = fmaf(value, gradients[place * pitch + o], sums[o]);
        }
      }
  }
  const int64_t outputs = int64_t{gridDim.y} / tiles * p.out_channels;
#pragma unroll
  for (int o = 0; o < kOut; ++o) {
    if (o >= count) break;
    __syncthreads();
    sums_of[threadIdx.y][threadIdx.x] = sums[o];
    __syncthreads();
    if (threadIdx.y != 0 || weight >= weights) continue;
    float sum = 0;
    for (int row = 0; row < kWeightRows; ++row) sum += sums_of[row][threadIdx.x];
    partials[(blockIdx.x * outputs + first_output + o) * weights + weight] = sum;
  }
}

struct StoreWeight {
  float *dw, *db;
  int weights;
  __device__ void operator()(int64_t i, float sum) const {
    if (db == nullptr) {
      dw[i] = sum;
      return;
    }
    const int64_t output = i / (weights + 1), weight = i - output * (weights + 1);
    if (weight < weights)
      dw[output * weights + weight] = sum;
    else
      db[output] = sum;
  }
};

template <class T>
class DirectWeightGrad final : public Kernel {
 public:
  DirectWeightGrad(WeightGradProblem2d problem, int64_t groups)
      : problem_(problem), groups_(static_cast<int>(groups)) {
    tile_ = channels_at_once(problem.out_channels);
    slices_ = slices_for(grid().y * grid().z, problem.places, 2 * kPlacesAtOnce);
    problem_.slice = static_cast<int>((problem.places + slices_ - 1) / slices_);
  }

  int64_t workspace_bytes() const override { return slices_ * count() * 4; }

  void run(const KernelArgs& args) override {
    auto* partials = static_cast<float*>(args.workspace);
    switch (tile_) {
      case 1:
        start<1>(args, partials);
        break;
      case 4:
        start<4>(args, partials);
        break;
      case 8:
        start<8>(args, partials);
        break;
      default:
        start<12>(args, partials);
    }
    const StoreWeight store{args.out[0].as<float>(), problem_.bias ? args.out[1].as<float>() : nullptr,
                            problem_.weights};
    add_partials(partials, slices_, count(), store, args.stream);
  }

 private:
  int64_t count() const {
    return int64_t{groups_} * problem_.out_channels * (problem_.weights + problem_.bias);
  }
  dim3 grid() const {
    return dim3(static_cast<unsigned>(slices_),
                blocks(problem_.out_channels, tile_) * static_cast<unsigned>(groups_),
                blocks(problem_.weights + problem_.bias, 32));
  }
  template <int kOut>
  void start(const KernelArgs& args, float* partials) const {
    launch(weight_grad_slice<T, kOut>, grid(), dim3(32, kWeightRows), 0, args.stream, problem_,
           args.in[0].as<const T>(), args.in[1].as<const T>(), partials);
  }

  WeightGradProblem2d problem_;
  int groups_, tile_ = 1;
  int64_t slices_ = 1;
};

template <class T>
bool served(const TensorSpec& a, const TensorSpec& b) {
  return a.dtype == kDType<T> && b.dtype == kDType<T> && a.layout == b.layout && a.layout != Layout::lanes;
}

}  // namespace

template <class T>
std::unique_ptr<Kernel> make_direct_conv2d(const KernelRequest& r) {
  const TensorSpec &x = r.in[0], &w = r.in[1], &y = r.out[0];
  if (!served<T>(x, y) || w.dtype != kDType<T>) return nullptr;
  const auto& params = r.params.as<Conv2dParams>();
  GatherProblem p;
  p.in = strides(x), p.out = strides(y);
  p.in_channels = static_cast<int>(w.shape[1]);
  p.out_channels = static_cast<int>(w.shape[0] / params.groups);
  p.in_weights = static_cast<int>(w.shape.elements_from(2));
  p.out_weights = static_cast<int>(w.shape.elements_from(1));
  p.group_weights = p.out_channels * p.out_weights;
  p.activation = params.activation;
  return std::make_unique<DirectGather<T>>(std::vector{forward_gather(params, x.shape, w.shape, y.shape)}, p,
                                           params.groups);
}

template <class T>
std::unique_ptr<Kernel> make_direct_conv2d_input_grad(const KernelRequest& r) {
  const TensorSpec &dy = r.in[0], &w = r.in[1], &dx = r.out[0];
  if (!served<T>(dy, dx) || w.dtype != kDType<T>) return nullptr;
  const auto& params = r.params.as<Conv2dParams>();
  GatherProblem p;
  p.in = strides(dy), p.out = strides(dx);
  p.in_channels = static_cast<int>(w.shape[0] / params.groups);
  p.out_channels = static_cast<int>(w.shape[1]);
  p.in_weights = static_cast<int>(w.shape.elements_from(1));
  p.out_weights = static_cast<int>(w.shape.elements_from(2));
  p.group_weights = p.in_channels * p.in_weights;
  return std::make_unique<DirectGather<T>>(input_grad_gathers(params, dx.shape, w.shape, dy.shape), p,
                                           params.groups);
}

template <class T>
std::unique_ptr<Kernel> make_direct_conv2d_weight_grad(const KernelRequest& r) {
  const TensorSpec &x = r.in[0], &dy = r.in[1], &dw = r.out[0];
  if (!served<T>(x, dy) || dw.dtype != DType::f32) return nullptr;
  const auto& params = r.params.as<Conv2dParams>();
  WeightGradProblem2d p;
  p.gather = forward_gather(params, x.shape, dw.shape, dy.shape);
  p.x = strides(x), p.dy = strides(dy);
  p.in_channels = static_cast<int>(dw.shape[1]);
  p.out_channels = static_cast<int>(dw.shape[0] / params.groups);
  p.weights = static_cast<int>(dw.shape.elements_from(1));
  p.bias = r.out.size() > 1;
  const int64_t places = dy.shape[0] * dy.shape.elements_from(2);
  LOCKSTEP_ASSERT(places < int64_t{1} << 31, "{} places", places);
  p.places = static_cast<int>(places);
  return std::make_unique<DirectWeightGrad<T>>(p, params.groups);
}

template std::unique_ptr<Kernel> make_direct_conv2d<float>(const KernelRequest&);
template std::unique_ptr<Kernel> make_direct_conv2d<bf16>(const KernelRequest&);
template std::unique_ptr<Kernel> make_direct_conv2d_input_grad<float>(const KernelRequest&);
template std::unique_ptr<Kernel> make_direct_conv2d_input_grad<bf16>(const KernelRequest&);
template std::unique_ptr<Kernel> make_direct_conv2d_weight_grad<float>(const KernelRequest&);
template std::unique_ptr<Kernel> make_direct_conv2d_weight_grad<bf16>(const KernelRequest&);

}  // namespace lockstep::LOCKSTEP_DEVICE
