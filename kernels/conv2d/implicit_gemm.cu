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
  int channels, padded_channels, elements;  // of a pixel, of a tap, of a line
  Divider per_tap, per_tap_row;

  GatheredPixels(const View& images_, const Gather& g, int64_t padded)
      : images(images_.as<const T>()),
        image_size(images_.shape().elements_from(1)),
        gather(g),
        places(g, images_.dim(0)),
        channels(static_cast<int>(images_.dim(1))),
        padded_channels(static_cast<int>(padded)),
        elements(checked(padded * g.taps())),
        per_tap(padded),
        per_tap_row(std::max(g.w.taps, 1)) {}

  // Element k of a line.
  struct Tap {
    int r, s, channel;
  };
  __device__ Tap tap(int k) const {
    const int tap = per_tap.divide(k), r = per_tap_row.divide(tap);
    return {r, per_tap_row.rest(tap, r), per_tap.rest(k, tap)};
  }
  // Where pixel (h, w) lies in an image.
  __device__ int pixel(int h, int w) const { return (h * gather.w.in + w) * channels; }
  __device__ bool inside(int h, int w) const {
    const auto rows = static_cast<unsigned>(gather.h.in), columns = static_cast<unsigned>(gather.w.in);
    return (static_cast<unsigned>(h) < rows) & (static_cast<unsigned>(w) < columns);
  }

  // Some places, tap after tap.
  template <int kCount, int kApart>
  class AlongK {
   public:
    __device__ AlongK(const GatheredPixels& of, int line, int k, int k_end)
        : of_(of), left_(k_end - k), tap_(of.tap(k)), step_(of.tap(kDepth<T>)) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const int m = line + i * kApart;
        const Places::Place p = of.places(min(m, of.places.count - 1));
        h_[i] = p.i * of.gather.h.step + of.gather.h.first;
        w_[i] = p.j * of.gather.w.step + of.gather.w.first;
        first_[i] = opaque(of.images + p.n * of.image_size + of.pixel(h_[i], w_[i]));
        if (m >= of.places.count) h_[i] = kOutside;
      }
    }
    __device__ Piece<T> take(int i) {
      const int h = tap_.r * of_.gather.h.tap_step, w = tap_.s * of_.gather.w.tap_step;
      const bool exists = of_.inside(h_[i] + h, w_[i] + w) & (left_ > 0);
      const Piece<T> piece{first_[i] + (of_.pixel(h, w) + tap_.channel), exists, of_.channels - tap_.channel};
      if (i == kCount - 1) advance();
      return piece;
    }

   private:
    static constexpr int kOutside = -(1 << 30);
    __device__ void advance() {
      left_ -= kDepth<T>;
      tap_ = {tap_.r + step_.r, tap_.s + step_.s, tap_.channel + step_.channel};
      if (tap_.channel >= of_.padded_channels) tap_.channel -= of_.padded_channels, ++tap_.s;
      if (tap_.s >= of_.gather.w.taps) tap_.s -= of_.gather.w.taps, ++tap_.r;
    }

    const GatheredPixels& of_;
    const T* first_[kCount];     // the pixel of tap 0, which need not exist
    int h_[kCount], w_[kCount];  // its coordinates
    int left_;                   // elements
    Tap tap_, step_;
  };

  // One tap, place after place: from row to row, from image to image.
  template <int kApart>
  class Across {
   public:
    __device__ Across(const GatheredPixels& of, int k, int position, int k_end)
        : of_(of), left_(position < of.elements ? k_end - k : 0) {
      const Places::Place p = of.places(k), step = of.places(kApart);
      const Tap tap = of.tap(position);
      const GatherAxis &h = of.gather.h, &w = of.gather.w;
      const int first_h = h.first + tap.r * h.tap_step, first_w = w.first + tap.s * w.tap_step;
      rows_ = h.places * h.step, columns_ = w.places * w.step;
      h_ = first_h + p.i * h.step, h_end_ = first_h + rows_;
      w_ = first_w + p.j * w.step, w_end_ = first_w + columns_;
      at_ = of.images + p.n * of.image_size + of.pixel(h_, w_) + tap.channel;
      count_ = of.channels - tap.channel;
      step_h_ = step.i * h.step, step_w_ = step.j * w.step;
      step_ = step.n * of.image_size + of.pixel(step_h_, step_w_);
      row_ = h.step, next_row_ = of.pixel(row_, -columns_);
      next_image_ = static_cast<int>(of.image_size - int64_t{rows_} * of.gather.w.in * of.channels);
    }
    __device__ Piece<T> take(int /*i*/) {
      const bool exists = of_.inside(h_, w_) & (left_ > 0);
      const Piece<T> piece{at_, exists, count_};
      advance();
      return piece;
    }

   private:
    __device__ void advance() {
      left_ -= kApart;
      h_ += step_h_, w_ += step_w_;
      int further = 0;
      if (w_ >= w_end_) h_ += row_, w_ -= columns_, further = next_row_;
      if (h_ >= h_end_) h_ -= rows_, further += next_image_;
      at_ = opaque(opaque(at_ + step_) + further);
    }

    const GatheredPixels& of_;
    const T* at_;
    int left_, count_;  // places; channels
    int h_, w_, h_end_, w_end_;
    int rows_, columns_;  // of the image, that places are spread over
    int step_h_, step_w_, row_;
    int64_t step_;
    int next_row_, next_image_;  // further on, where a row or an image ends
  };
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
