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
void register_group_norm(Registry&);
void register_image_augment(Registry&);
void register_image_normalize(Registry&);
void register_linear(Registry&);
void register_loss(Registry&);
void register_optimizer(Registry&);
void register_pool2d(Registry&);
void register_reorder(Registry&);
void register_resample(Registry&);
void register_scale_shift(Registry&);
void register_timestep_embedding(Registry&);

namespace simt {
void register_rooms(Registry&, Device);  // kernels/core/gpu/rooms.cu
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
    register_group_norm(r);
    register_image_augment(r);
    register_image_normalize(r);
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

const char* name(Device d) {
  switch (d) {
    case Device::cpu:
      return "cpu";
    case Device::cuda:
      return "cuda";
    case Device::simt:
      return "simt";
  }
  return "?";
}

const char* name(LayoutClass l) {
  switch (l) {
    case LayoutClass::any:
      return "any";
    case LayoutClass::plain:
      return "plain";
    case LayoutClass::nhwc:
      return "nhwc";
    case LayoutClass::lanes:
      return "lanes";
  }
  return "?";
}

DType kernel_dtype(const KernelRequest& request) {
  for (auto specs : {request.in, request.out})
    for (const auto& s : specs)
      if (s.dtype == DType::bf16) return DType::bf16;
  return DType::f32;
}

void Registry::add(KernelInfo info) {
  LOCKSTEP_ASSERT(find(info.op, info.name, info.device, info.dtype) == nullptr,
                  "{} {} {} {} registered twice", info.op, info.name, name(info.device), name(info.dtype));
  infos_.push_back(std::move(info));
}

const KernelInfo* Registry::find(std::string_view op, std::string_view name, Device device,
                                 DType dtype) const {
  for (const auto& k : infos_)
    if (k.op == op && k.name == name && k.device == device && k.dtype == dtype) return &k;
  return nullptr;
}

namespace {

// Weights, statistics and scalars are plain in every layout class, so one tensor in the class's own
// layout is enough to tell, and none may be in another.
bool layouts_fit(LayoutClass c, const KernelRequest& r) {
  if (c == LayoutClass::any) return true;
  bool any_lanes = false, any_nhwc = false;
  for (auto specs : {r.in, r.out})
    for (const auto& s : specs) {
      any_lanes |= s.layout == Layout::lanes;
      any_nhwc |= s.layout == Layout::nhwc;
    }
  switch (c) {
    case LayoutClass::plain:
      return !any_lanes && !any_nhwc;
    case LayoutClass::lanes:
      return any_lanes && !any_nhwc;
    case LayoutClass::nhwc:
      return any_nhwc && !any_lanes;
    case LayoutClass::any:
      return true;
  }
  return false;
}

}  // namespace

std::vector<const KernelInfo*> Registry::candidates(std::string_view op, Device device,
                                                    const KernelRequest& request) const {
  std::vector<const KernelInfo*> found;
  const DType dtype = kernel_dtype(request);
  for (bool reference : {false, true})
    for (const auto& k : infos_)
      if (k.op == op && k.device == device && k.is_reference() == reference && k.dtype == dtype &&
          layouts_fit(k.layout, request))
        found.push_back(&k);
  return found;
}

}  // namespace lockstep
