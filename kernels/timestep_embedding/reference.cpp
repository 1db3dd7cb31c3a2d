// SPDX-License-Identifier: Apache-2.0
// The only one on CPUs: a batch's few thousand sines are nothing beside the net that they go into.
#include "kernels/core/kernel.h"
#include "kernels/core/padding.h"
#include "kernels/timestep_embedding/frequencies.h"

namespace lockstep {
namespace {

class Reference final : public Kernel {
 public:
  explicit Reference(const TimestepEmbeddingParams& p) : p_(p), frequencies_(timestep_frequencies(p)) {}

  void run(const KernelArgs& args) override {
    const View &t = args.in[0], &y = args.out[0];
    const int64_t half = p_.dim / 2, sine = p_.flip_sin_to_cos ? half : 0, cosine = half - sine;
    for (int64_t n = 0; n < t.dim(0); ++n) {
      const float time =
          t.spec.dtype == DType::i32 ? static_cast<float>(t.as<int32_t>()[n]) : t.as<float>()[n];
      const auto put = [&](int64_t i, double v) {
        y.as<float>()[y.spec.offset(n, i)] = static_cast<float>(v);
      };
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(p_.scale) * (time * frequencies_[static_cast<size_t>(i)]);
        put(sine + i, std::sin(double{angle}));
        put(cosine + i, std::cos(double{angle}));
      }
      if (p_.dim % 2 == 1) put(p_.dim - 1, 0);
    }
    zero_padding_lanes(y);
  }

 private:
  TimestepEmbeddingParams p_;
  std::vector<float> frequencies_;
};

}  // namespace

void register_timestep_embedding(Registry& r) {
  r.add({.op = "timestep_embedding",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return std::make_unique<Reference>(q.params.as<TimestepEmbeddingParams>());
         }});
}

}  // namespace lockstep
