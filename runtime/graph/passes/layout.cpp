// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "runtime/graph/op.h"
#include "runtime/graph/passes.h"

namespace lockstep {
namespace {

// Only images have a channel dimension to move; a vector of one number a sample is plain everywhere.
Layout layout_for(const Shape& s, Layout layout) {
  return s.rank() == 1 || (layout == Layout::nhwc && s.rank() != 4) ? Layout::plain : layout;
}

}  // namespace

Graph assign_layouts(const Graph& from, const std::vector<ValueId*>& values, Device device,
                     DType activations) {
  Graph to;
  GraphBuilder b(to);
  std::vector<ValueId> copy(static_cast<size_t>(from.value_count()), kNoValue);
  std::map<std::pair<ValueId, Layout>, ValueId> reordered;  // by value of `to`

  const auto producer = from.producers();
  for (ValueId v = 0; v < from.value_count(); ++v)
    if (producer[static_cast<size_t>(v)] < 0) copy[static_cast<size_t>(v)] = to.add_value(from.value(v));

  // The producer's own choice, where it has one: an image can be normalised into any layout.
  auto in_layout = [&](ValueId v, Layout layout) {
    layout = layout_for(b.spec(v).shape, layout);
    if (!to.value(v).batch || b.spec(v).layout == layout) return v;
    const auto key = std::pair{v, layout};
    if (auto it = reordered.find(key); it != reordered.end()) return it->second;
    if (!to.nodes().empty() && to.nodes().back().op == "image_normalize" && to.nodes().back().out[0] == v) {
      to.value(v).spec.layout = layout;
      return v;
    }
    return reordered[key] = b.reorder(v, layout);
  };

  for (const Node& n : from.nodes()) {
    b.set_scope(n.name);
    b.set_block(n.block);
    Node m = n;
    for (ValueId& v : m.in) v = copy[static_cast<size_t>(v)];
    // From here on as in `from`: its node, its values, with only layouts changed.
    if (n.op == "reorder") {  // layouts are this pass's: made anew where they are needed
      copy[static_cast<size_t>(n.out[0])] = m.in[0];
      continue;
    }
    if (const TensorSpec& out = from.value(n.out[0]).spec;
        n.kind == NodeKind::view &&
        out.layout != from.value(n.in[0]).spec.layout) {  // tokens, or an image of them
      copy[static_cast<size_t>(n.out[0])] =
          b.view_as(in_layout(m.in[0], from.value(n.in[0]).spec.layout), out);
      continue;
    }
    if (n.kind == NodeKind::view) {
      const ValueId x = b.spec(m.in[0]).layout == Layout::nhwc ? in_layout(m.in[0], Layout::plain) : m.in[0];
      copy[static_cast<size_t>(n.out[0])] = b.view(x, from.value(n.out[0]).spec.shape);
      continue;
    }
    Layout layout = Layout::plain;
    for (ValueId v : m.in)
      if (to.value(v).batch && b.spec(v).dtype == DType::f32) {
        layout = b.spec(v).layout;
        break;
      }
    if (n.kind == NodeKind::compute)
      if (auto prefer = op_def(n.op).preferred_layout) layout = prefer(to, m);
    // Lanes are those of a CPU's vectors of f32.
    if (layout == Layout::lanes && (device != Device::cpu || activations == DType::bf16))
      layout = Layout::plain;
    for (ValueId& v : m.in)
      if (b.spec(v).dtype == DType::f32) v = in_layout(v, layout);
    for (size_t i = 0; i < n.out.size(); ++i) {
      Value value = from.value(n.out[i]);
      if (value.batch && n.op != "image_normalize") value.spec.layout = layout_for(value.spec.shape, layout);
      m.out[i] = to.add_value(value);
      copy[static_cast<size_t>(n.out[i])] = m.out[i];
    }
    to.add_node(std::move(m));
  }
  for (ValueId* v : values)
    if (*v != kNoValue) *v = copy[static_cast<size_t>(*v)];
  return to;
}

}  // namespace lockstep
