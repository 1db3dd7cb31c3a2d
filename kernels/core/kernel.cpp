// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"

namespace lockstep {

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
