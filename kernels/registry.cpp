// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"

namespace lockstep {

// One line per room; each room defines its own function in <room>/register.cpp.
void register_attention(Registry&);
void register_batch_norm(Registry&);
void register_cast(Registry&);
void register_concat(Registry&);
void register_conv2d(Registry&);
void register_diffusion(Registry&);
void register_dropout(Registry&);
void register_elementwise(Registry&);
void register_embedding(Registry&);
void register_geglu(Registry&);
void register_group_norm(Registry&);
void register_image_augment(Registry&);
void register_image_normalize(Registry&);
void register_layer_norm(Registry&);
void register_linear(Registry&);
void register_loss(Registry&);
void register_optimizer(Registry&);
void register_pool2d(Registry&);
void register_reorder(Registry&);
void register_resample(Registry&);
void register_scale_shift(Registry&);
void register_timestep_embedding(Registry&);

namespace simt {
void register_rooms(Registry&, Device);  // kernels/registry.cu
}
#ifdef LOCKSTEP_HAS_CUDA
namespace cuda {
void register_rooms(Registry&, Device);
}
#endif
#ifdef LOCKSTEP_HAS_CUDNN
void register_conv2d_cudnn(Registry&);
void register_pool2d_cudnn(Registry&);
#endif
#ifdef LOCKSTEP_HAS_CUDNN_FRONTEND
void register_attention_cudnn(Registry&);
#endif
#ifdef LOCKSTEP_HAS_CUBLASLT
void register_linear_cublaslt(Registry&);
#endif

const Registry& Registry::builtin() {
  static const Registry registry = [] {
    Registry r;
    register_attention(r);
    register_batch_norm(r);
    register_cast(r);
    register_concat(r);
    register_conv2d(r);
    register_diffusion(r);
    register_dropout(r);
    register_elementwise(r);
    register_embedding(r);
    register_geglu(r);
    register_group_norm(r);
    register_image_augment(r);
    register_image_normalize(r);
    register_layer_norm(r);
    register_linear(r);
    register_loss(r);
    register_optimizer(r);
    register_pool2d(r);
    register_reorder(r);
    register_resample(r);
    register_scale_shift(r);
    register_timestep_embedding(r);
    simt::register_rooms(r, Device::simt);
#ifdef LOCKSTEP_HAS_CUDA
    cuda::register_rooms(r, Device::cuda);
#endif
#ifdef LOCKSTEP_HAS_CUDNN
    register_conv2d_cudnn(r);
    register_pool2d_cudnn(r);
#endif
#ifdef LOCKSTEP_HAS_CUDNN_FRONTEND
    register_attention_cudnn(r);
#endif
#ifdef LOCKSTEP_HAS_CUBLASLT
    register_linear_cublaslt(r);
#endif
    return r;
  }();
  return registry;
}

}  // namespace lockstep
