// SPDX-License-Identifier: Apache-2.0
// Tensors of f32 or bf16: what kernels of either ask and do.
#pragma once

#include "kernels/core/bf16.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// Registers a kernel that takes tensors of one type, f32 or bf16, for both.
inline void add_of_one_dtype(Registry& registry, const KernelInfo& info) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    KernelInfo k = info;
    k.dtype = dtype;
    k.make = [dtype, make = info.make](const KernelRequest& r) -> std::unique_ptr<Kernel> {
      for (auto specs : {r.in, r.out})
        for (const TensorSpec& s : specs)
          if (s.dtype != dtype) return nullptr;
      return make(r);
    };
    registry.add(std::move(k));
  }
}

// f(address), a float* or a bf16* as the tensor is.
template <class F>
inline __attribute__((always_inline)) void typed(const View& v, F f) {
  v.spec.dtype == DType::bf16 ? f(v.as<bf16>()) : f(v.as<float>());
}

}  // namespace lockstep
