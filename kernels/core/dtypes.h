// Tensors of f32 or bf16: what kernels of either ask and do.
#pragma once

#include "kernels/core/bf16.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// Whether all tensors are of this type.
inline bool of_one_dtype(const KernelRequest& r, DType dtype) {
  for (auto specs : {r.in, r.out})
    for (const TensorSpec& s : specs)
      if (s.dtype != dtype) return false;
  return true;
}

// f(address), a float* or a bf16* as the tensor is.
template <class F>
inline __attribute__((always_inline)) void typed(const View& v, F f) {
  v.spec.dtype == DType::bf16 ? f(v.as<bf16>()) : f(v.as<float>());
}

}  // namespace lockstep
