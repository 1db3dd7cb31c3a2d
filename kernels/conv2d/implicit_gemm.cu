// SPDX-License-Identifier: Apache-2.0
// Convolutions on nhwc images as matrix products whose operand is gathered from the image while it is copied
// to shared memory.
//   forward, input gradient   D[place][channel] = sum over (tap, in channel) of image[place, tap][in channel]
//   * w weight gradient           D[(tap, in channel)][out channel] = sum over places of x * dy
// (tap, channel) counts channels up to a multiple of 16 bytes, so a piece never straddles two taps.
#include "kernels/gpu/device_code.h"
//
#include "kernels/conv2d/gather.cuh"
#include "kernels/conv2d/gpu.h"
#include "kernels/conv2d/pack.cuh"
#include "kernels/gpu/gemm.cuh"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

template <class T>
int64_t padded(int64_t channels) {
  constexpr int64_t kPiece = Vector<T>::kCount;
  return (channels + kPiece - 1) / kPiece * kPiece;
}

int checked(int64_t extent) {
  LOCKSTEP_ASSERT(extent < (int64_t{1} << 31) - 256, "a matrix of {}", extent);
  return static_cast<int>(extent);
}

// What place m is: pixel (i, j) of image n, counted along the axes of a Gather.
struct Places {
  Divider per_image, per_row;
  int count;

  Places(const Gather& g, int64_t images)
      : per_image(std::max(g.places(), 1)),
        per_row(std::max(g.w.places, 1)),
        count(checked(images * g.places())) {}

  struct Place {
    int n, i, j;
  };
  __device__ Place operator()(int m) const {
    const int n = per_image.divide(m), pixel = per_image.rest(m, n), i = per_row.divide(pixel);
    return {n, i, per_row.rest(pixel, i)};
  }
};

// A source of matrix products: a line per place, whose elements are (tap, channel).
template <class T>
struct GatheredPixels {
  const T* images;
  int64_t image_size;
  Gather gather;
  Places places;
  int channels, elements;  // of a pixel, of a line
  Divider per_tap, per_tap_row;

  GatheredPixels(const View& images_, const Gather& g, int64_t padded_channels)
      : images(images_.as<const T>()),
        image_size(images_.shape().elements_from(1)),
        gather(g),
        places(g, images_.dim(0)),
        channels(static_cast<int>(images_.dim(1))),
        elements(checked(padded_channels * g.taps())),
        per_tap(padded_channels),
        per_tap_row(std::max(g.w.taps, 1)) {}

  struct Line {
    const T* image;
    int h, w;  // of tap 0
  };
  struct Position {
    int h, w;  // distance from tap 0
    int channel;
  };
  __device__ Line line(int m) const {
    constexpr int kOutside = -(1 << 30);
    if (m >= places.count) return {images, kOutside, 0};
    const Places::Place p = places(m);
    return {images + p.n * image_size, p.i * gather.h.step + gather.h.first,
            p.j * gather.w.step + gather.w.first};
  }
  __device__ Position position(int k) const {
    if (k >= elements) return {0, 0, channels};
    const int tap = per_tap.divide(k), r = per_tap_row.divide(tap);
    return {r * gather.h.tap_step, per_tap_row.rest(tap, r) * gather.w.tap_step, per_tap.rest(k, tap)};
  }
  __device__ Piece<T> at(const Line& line, const Position& p) const {
    const int h = line.h + p.h, w = line.w + p.w, left = channels - p.channel;
    if (left <= 0 || static_cast<unsigned>(h) >= static_cast<unsigned>(gather.h.in) ||
        static_cast<unsigned>(w) >= static_cast<unsigned>(gather.w.in))
      return {images, 0};
    return {line.image + (h * gather.w.in + w) * channels + p.channel, min(left, Vector<T>::kCount)};
  }
};

// Where a place's channels are written.
struct PlaceRows {
  Places places;
  GatherAxis h, w;
  int channels;
  __device__ int64_t operator()(int m) const {
    const Places::Place p = places(m);
    const int row = p.n * h.out + p.i * h.out_step + h.out_first;
    return (int64_t{row} * w.out + p.j * w.out_step + w.out_first) * channels;
  }
};

// The forward convolution and the input gradient. Workspace: the packed weights.
template <class T>
class GatherGemm final : public Kernel {
 public:
  GatherGemm(std::vector<Gather> gathers, const Shape& in, const Shape& out, int64_t in_weights,
             int64_t out_weights, Activation activation)
      : gathers_(std::move(gathers)),
        in_channels_(in[1]),
        out_channels_(out[1]),
        in_weights_(in_weights),
        out_weights_(out_weights),
        activation_(activation) {}

  int64_t workspace_bytes() const override {
    int64_t elements = 0;
    for (const Gather& g : gathers_) elements += packed_elements(g);
    return elements * size_of(kDType<T>);
  }

  void run(const KernelArgs& args) override {
    const View &images = args.in[0], &out = args.out[0];
    const float* bias = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
    auto* packed = static_cast<T*>(args.workspace);
    for (const Gather& g : gathers_) {
      const int64_t padded_in = padded<T>(in_channels_), depth = padded_in * g.taps(),
                    count = packed_elements(g);
      const PackedWeights pack{g,
                               static_cast<int>(in_channels_),
                               static_cast<int>(padded_in),
                               static_cast<int>(out_channels_),
                               static_cast<int>(in_weights_),
                               static_cast<int>(out_weights_)};
      pack_weights(pack, args.in[1].as<const T>(), packed, args.stream);

      const GatheredPixels<T> pixels(images, g, padded_in);
      const Rows<T> weights{packed, depth, static_cast<int>(out_channels_), checked(depth)};
      const Output<T, PlaceRows> output{
          out.as<T>(), {pixels.places, g.h, g.w, static_cast<int>(out_channels_)}, bias, activation_};
      constexpr int kPiece = Vector<T>::kCount;
      gemm<T, true, true>(pixels, weights, output, unsplit(pixels.places.count, out_channels_, depth), 1,
                          in_channels_ % kPiece == 0, out_channels_ % kPiece == 0, args.stream);
      packed += count;
    }
  }

 private:
  int64_t packed_elements(const Gather& g) const {
    return out_channels_ * g.taps() * padded<T>(in_channels_);
  }

  std::vector<Gather> gathers_;
  int64_t in_channels_, out_channels_, in_weights_, out_weights_;
  Activation activation_;
};

// The sum over places in slices; workspace: their sums, then those of the bias.
template <class T>
class WeightGradGemm final : public Kernel {
 public:
  WeightGradGemm(const Conv2dParams& p, const KernelRequest& r)
      : gather_(forward_gather(p, r.in[0].shape, r.out[0].shape, r.in[1].shape)),
        in_channels_(r.out[0].shape[1]),
        out_channels_(r.out[0].shape[0]),
        places_(checked(r.in[1].shape[0] * gather_.places())),
        lines_(checked(padded<T>(in_channels_) * gather_.taps())),
        split_(lines_, out_channels_, places_),
        bias_sums_(places_, out_channels_),
        bias_(r.out.size() > 1) {}

  int64_t workspace_bytes() const override {
    return (partial_floats() + (bias_ ? bias_sums_.workspace_floats() : 0)) * 4;
  }

  void run(const KernelArgs& args) override {
    const View& dy = args.in[1];
    auto* partials = static_cast<float*>(args.workspace);
    const auto outputs = static_cast<int>(out_channels_);
    const GatheredPixels<T> pixels(args.in[0], gather_, padded<T>(in_channels_));
    const Rows<T> gradients{dy.as<const T>(), out_channels_, static_cast<int>(places_), outputs};
    GemmSize size = unsplit(lines_, out_channels_, places_);
    size.k_slice = split_.k_slice;
    constexpr int kPiece = Vector<T>::kCount;
    gemm<T, false, false>(pixels, gradients, Partials{partials, out_channels_, lines_ * out_channels_}, size,
                          split_.slices, in_channels_ % kPiece == 0 && out_channels_ % kPiece == 0,
                          out_channels_ % Partials::kAtOnce<T> == 0, args.stream);
    if (split_.slices > 1)
      add_partials(partials, split_.slices, lines_ * out_channels_, StoreFloat{partials}, args.stream);
    const WeightGradSums sums{gather_.taps(), static_cast<int>(in_channels_),
                              static_cast<int>(padded<T>(in_channels_)), outputs};
    unpack_weight_grad(sums, partials, args.out[0].as<float>(), args.stream);
    if (bias_)
      bias_sums_.run(dy.as<const T>(), partials + partial_floats(), args.out[1].as<float>(), args.stream);
  }

 private:
  int64_t partial_floats() const { return split_.slices * lines_ * out_channels_; }

  Gather gather_;
  int64_t in_channels_, out_channels_, places_, lines_;
  SplitK<T> split_;
  ColumnSums bias_sums_;
  bool bias_;
};

template <class T>
bool takes(const Conv2dParams& p, const TensorSpec& a, const TensorSpec& b) {
  return p.groups == 1 && a.dtype == kDType<T> && b.dtype == kDType<T> && a.layout == Layout::nhwc &&
         b.layout == Layout::nhwc;
}

}  // namespace

template <class T>
std::unique_ptr<Kernel> make_implicit_gemm_conv2d(const KernelRequest& r) {
  const TensorSpec &x = r.in[0], &w = r.in[1], &y = r.out[0];
  const auto& p = r.params.as<Conv2dParams>();
  if (!takes<T>(p, x, y) || w.dtype != kDType<T>) return nullptr;
  return std::make_unique<GatherGemm<T>>(std::vector{forward_gather(p, x.shape, w.shape, y.shape)}, x.shape,
                                         y.shape, w.shape.elements_from(2), w.shape.elements_from(1),
                                         p.activation);
}

template <class T>
std::unique_ptr<Kernel> make_implicit_gemm_conv2d_input_grad(const KernelRequest& r) {
  const TensorSpec &dy = r.in[0], &w = r.in[1], &dx = r.out[0];
  const auto& p = r.params.as<Conv2dParams>();
  if (!takes<T>(p, dy, dx) || w.dtype != kDType<T>) return nullptr;
  return std::make_unique<GatherGemm<T>>(input_grad_gathers(p, dx.shape, w.shape, dy.shape), dy.shape,
                                         dx.shape, w.shape.elements_from(1), w.shape.elements_from(2),
                                         Activation::none);
}

template <class T>
std::unique_ptr<Kernel> make_implicit_gemm_conv2d_weight_grad(const KernelRequest& r) {
  const auto& p = r.params.as<Conv2dParams>();
  if (!takes<T>(p, r.in[0], r.in[1]) || r.out[0].dtype != DType::f32) return nullptr;
  if (unpack_channels(static_cast<int>(r.out[0].shape.elements_from(2))) == 0) return nullptr;
  return std::make_unique<WeightGradGemm<T>>(p, r);
}

template std::unique_ptr<Kernel> make_implicit_gemm_conv2d<float>(const KernelRequest&);
template std::unique_ptr<Kernel> make_implicit_gemm_conv2d<bf16>(const KernelRequest&);
template std::unique_ptr<Kernel> make_implicit_gemm_conv2d_input_grad<float>(const KernelRequest&);
template std::unique_ptr<Kernel> make_implicit_gemm_conv2d_input_grad<bf16>(const KernelRequest&);
template std::unique_ptr<Kernel> make_implicit_gemm_conv2d_weight_grad<float>(const KernelRequest&);
template std::unique_ptr<Kernel> make_implicit_gemm_conv2d_weight_grad<bf16>(const KernelRequest&);

}  // namespace lockstep::LOCKSTEP_DEVICE
