// The only one on CPUs: a batch's few thousand sines are nothing beside the net that they go into.
#include "kernels/core/kernel.h"
#include "kernels/core/padding.h"
#include "kernels/timestep_embedding/frequencies.h"

namespace lockstep {
namespace {

void run(const TimestepEmbeddingParams& p, const KernelArgs& args) {
  const View &t = args.in[0], &y = args.out[0];
  const std::vector<float> frequencies = timestep_frequencies(p);
  const int64_t half = p.dim / 2, sine = p.flip_sin_to_cos ? half : 0, cosine = half - sine;
  for (int64_t n = 0; n < t.dim(0); ++n) {
    const float time = t.spec.dtype == DType::i32 ? static_cast<float>(t.as<int32_t>()[n]) : t.as<float>()[n];
    const auto put = [&](int64_t i, double v) { y.as<float>()[y.spec.offset(n, i)] = static_cast<float>(v); };
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p.scale) * (time * frequencies[static_cast<size_t>(i)]);
      put(sine + i, std::sin(double{angle}));
      put(cosine + i, std::cos(double{angle}));
    }
    if (p.dim % 2 == 1) put(p.dim - 1, 0);
  }
  zero_padding_lanes(y);
}

}  // namespace

void register_timestep_embedding(Registry& r) {
  r.add({.op = "timestep_embedding",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<TimestepEmbeddingParams>(run)});
}

}  // namespace lockstep
