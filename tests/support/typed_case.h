// SPDX-License-Identifier: Apache-2.0
// A typed case's tensors as a kernel gets them, in one layout, and the check of what it wrote.
#pragma once

#include <optional>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing {

inline std::string description(const TypedCase& t, const KernelInfo& info, Layout layout, bool in_place) {
  return fmt::format("{} '{}' {} {} {} layout={}{}", t.c.op, t.c.label, info.name, name(t.dtype),
                     t.c.params.text(), name(layout), in_place ? " in place" : "");
}

// Layouts in which a GPU's kernel may take the case, and whether in place.
inline std::vector<std::pair<Layout, bool>> gpu_variants(const TypedCase& t, const KernelInfo& info) {
  std::vector<std::pair<Layout, bool>> all;
  for (Layout layout : {Layout::plain, Layout::nhwc})
    for (bool in_place : {false, true})
      if (takes(info.layout, layout) && has_layout(t.c, layout) && !(in_place && t.c.in_place.empty()))
        all.emplace_back(layout, in_place);
  return all;
}

inline std::vector<Buffer> inputs_in(const TypedCase& t, Layout layout) {
  std::vector<Buffer> in;
  for (size_t i = 0; i < t.inputs.size(); ++i) {
    const Layout own = contains(t.c.batch_in, i) ? layout_for(t.c.in[i], layout) : Layout::plain;
    const float padding = contains(t.c.gradient_in, i) ? 0.0f : 0.25f;
    in.push_back(converted(to_layout(t.inputs[i], own, padding),
                           contains(t.bf16_in, i) ? DType::bf16 : t.c.in[i].dtype));
  }
  return in;
}

// The input whose memory output o takes in place; -1: none.
inline int shared_input(const TypedCase& t, size_t o) {
  for (auto [from, to] : t.c.in_place)
    if (to == static_cast<int>(o)) return from;
  return -1;
}
inline bool overwritten(const TypedCase& t, size_t input, bool in_place) {
  for (auto [from, to] : t.c.in_place)
    if (in_place && from == static_cast<int>(input)) return true;
  return false;
}

// Nothing where the tensors of an in-place pair differ.
inline std::optional<std::vector<Buffer>> outputs_in(const TypedCase& t, Layout layout, bool in_place,
                                                     const std::vector<Buffer>& in) {
  std::vector<Buffer> out;
  for (size_t o = 0; o < t.c.out.size(); ++o) {
    TensorSpec s = t.c.out[o];
    if (contains(t.c.batch_out, o)) s.layout = layout_for(s, layout);
    if (contains(t.bf16_out, o)) s.dtype = DType::bf16;
    const int from = in_place ? shared_input(t, o) : -1;
    if (from >= 0 && in[static_cast<size_t>(from)].spec() != s) return {};
    out.push_back(from >= 0 ? in[static_cast<size_t>(from)] : Buffer(s));
  }
  return out;
}

inline void check_output(const TypedCase& t, size_t o, const Buffer& got, const std::string& where) {
  compare(converted(got, t.expected[o].spec().dtype), t.expected[o], t.tolerance(o),
          fmt::format("{} output {}", where, o));
}

// What a kernel gets of these tensors.
struct Views {
  explicit Views(const std::vector<Buffer>& buffers) {
    for (const Buffer& b : buffers) specs.push_back(b.spec()), views.push_back(b.view());
  }
  std::vector<TensorSpec> specs;
  std::vector<View> views;
};

}  // namespace lockstep::testing
