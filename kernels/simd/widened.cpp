// SPDX-License-Identifier: Apache-2.0
#include "kernels/simd/widened.h"

#include <algorithm>

#include "kernels/core/parallel.h"
#include "kernels/simd/convert.h"

namespace lockstep {
namespace {

constexpr int64_t kPieceBytes = 4 << 20;  // of the f32 copies: what a shared cache keeps

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

bool contains(const std::vector<int>& list, size_t i) {
  return std::find(list.begin(), list.end(), static_cast<int>(i)) != list.end();
}

// One tensor of the kernel, as the f32 kernel sees it.
struct Tensor {
  TensorSpec spec;       // the caller's, of all samples
  bool follows = false;  // dimension 0 is the batch
  int64_t copy_at = -1;  // where its f32 copy stands in the workspace; -1: it is used as it is

  TensorSpec piece(int64_t samples) const {
    TensorSpec s = spec;
    if (follows) s.shape.set(0, samples);
    return s;
  }
  TensorSpec f32_piece(int64_t samples) const {
    TensorSpec s = piece(samples);
    if (s.dtype == DType::bf16) s.dtype = DType::f32;
    return s;
  }
  // Samples from `first` on of the caller's tensor.
  View caller(const View& all, int64_t first, int64_t samples) const {
    const int64_t before = follows ? first * spec.shape.elements_from(1) * size_of(spec.dtype) : 0;
    return {piece(samples), all.as<std::byte>() + before};
  }
};

class Widened final : public Kernel {
 public:
  Widened(const KernelRequest& r, const FollowBatch& follow) : n_(r.in[0].shape[0]), threads_(r.threads) {
    const auto add = [](std::vector<Tensor>& to, std::span<const TensorSpec> specs,
                        const std::vector<int>& batch) {
      for (size_t i = 0; i < specs.size(); ++i) to.push_back({specs[i], contains(batch, i)});
    };
    add(in_, r.in, follow.in), add(out_, r.out, follow.out);
    LOCKSTEP_ASSERT(std::max(in_.size(), out_.size()) <= kMost);
    int64_t sample_bytes = 1;
    for (const auto* list : {&in_, &out_})
      for (const Tensor& t : *list)
        if (t.follows && t.spec.dtype == DType::bf16)
          sample_bytes += t.spec.shape.elements_from(1) * size_of(DType::f32);
    // A multiple of the threads, for kernels whose threads share samples.
    const int64_t room = kPieceBytes / sample_bytes / threads_ * threads_;
    piece_ = std::clamp<int64_t>(room, std::min<int64_t>(n_, threads_), n_);
  }

  bool prepare(const KernelRequest& r, MakeKernel make) {
    const auto make_for = [&](int64_t samples) {
      std::vector<TensorSpec> in, out;
      for (const Tensor& t : in_) in.push_back(t.f32_piece(samples));
      for (const Tensor& t : out_) out.push_back(t.f32_piece(samples));
      return make({r.params, in, out, r.threads});
    };
    whole_ = make_for(piece_);
    if (!whole_) return false;
    if (const int64_t rest = piece_ > 0 ? n_ % piece_ : 0; rest > 0)
      if (!(rest_ = make_for(rest))) return false;
    int64_t at = 0;
    const auto take = [&](Tensor& t, bool needed) {
      if (!needed) return;
      t.copy_at = at;
      at += aligned(t.f32_piece(piece_).bytes());
    };
    for (Tensor& t : in_) take(t, t.spec.dtype == DType::bf16);
    for (Tensor& t : out_) take(t, t.spec.dtype == DType::bf16 || (!t.follows && piece_ < n_));
    inner_at_ = at;
    inner_bytes_ = std::max(whole_->workspace_bytes(), rest_ ? rest_->workspace_bytes() : 0);
    return true;
  }

  int64_t workspace_bytes() const override { return inner_at_ + inner_bytes_; }

  void run(const KernelArgs& args) override {
    auto* workspace = static_cast<std::byte*>(args.workspace);
    View in[kMost], out[kMost];
    int64_t first = 0;
    do {  // once at least: without samples sums are zero
      const int64_t samples = std::min(piece_, n_ - first);
      for (size_t i = 0; i < in_.size(); ++i) {
        const Tensor& t = in_[i];
        in[i] = t.caller(args.in[i], first, samples);
        if (t.copy_at < 0) continue;
        const View copy{t.f32_piece(samples), workspace + t.copy_at};
        if (t.follows || first == 0) convert(in[i], copy, threads_);
        in[i] = copy;
      }
      for (size_t i = 0; i < out_.size(); ++i) {
        const Tensor& t = out_[i];
        out[i] = t.caller(args.out[i], first, samples);
        // The first sums go where they belong, the others are added to them.
        if (t.copy_at >= 0 && (t.follows || first > 0))
          out[i] = {t.f32_piece(samples), workspace + t.copy_at};
      }
      Kernel& kernel = samples == piece_ ? *whole_ : *rest_;
      kernel.run({{in, in_.size()}, {out, out_.size()}, workspace + inner_at_, args.stream});
      for (size_t i = 0; i < out_.size(); ++i) {
        const Tensor& t = out_[i];
        if (out[i].data == t.caller(args.out[i], first, samples).data) continue;
        t.follows ? convert(out[i], t.caller(args.out[i], first, samples), threads_)
                  : add(out[i], args.out[i]);
      }
      first += samples;
    } while (first < n_);
  }

 private:
  static constexpr size_t kMost = 8;  // inputs, outputs

  void add(const View& from, const View& to) const {
    const float* x = from.as<float>();
    float* sum = to.as<float>();
    parallel_ranges(from.spec.stored_elements(), threads_, 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum[i] += x[i];
    });
  }

  std::vector<Tensor> in_, out_;
  int64_t n_, piece_ = 0;
  int threads_;
  std::unique_ptr<Kernel> whole_, rest_;
  int64_t inner_at_ = 0, inner_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_widened(const KernelRequest& r, MakeKernel make, const FollowBatch& follow) {
  for (size_t i = 0; i < r.out.size(); ++i)
    if (!contains(follow.out, i) && r.out[i].dtype != DType::f32) return nullptr;
  auto kernel = std::make_unique<Widened>(r, follow);
  return kernel->prepare(r, make) ? std::move(kernel) : nullptr;
}

}  // namespace lockstep
