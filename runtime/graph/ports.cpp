// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/ports.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

std::vector<Port> ports_in(const Graph& graph, Storage storage) {
  std::vector<bool> read(static_cast<size_t>(graph.value_count()), storage == Storage::output);
  for (const Node& n : graph.nodes())
    for (ValueId v : n.in) read[static_cast<size_t>(v)] = true;
  std::vector<Port> ports;
  for (ValueId v : graph.values_in(storage)) {
    const Value& value = graph.value(v);
    if (value.name != kStepState) ports.push_back({value.name, value.spec, read[static_cast<size_t>(v)]});
  }
  return ports;
}

[[noreturn]] void refuse_tensors(std::span<const Port> ports, std::string message) {
  throw Error(Exit::usage, "E_PORT", std::move(message)).hint("the ports are " + text_of(ports));
}

}  // namespace

std::vector<Port> input_ports(const Graph& graph) { return ports_in(graph, Storage::input); }
std::vector<Port> output_ports(const Graph& graph) { return ports_in(graph, Storage::output); }

std::string text_of(std::span<const Port> ports) {
  std::string text;
  for (const Port& p : ports)
    text +=
        fmt::format("{}{} {} {}", text.empty() ? "" : ", ", p.name, name(p.spec.dtype), p.spec.shape.text());
  return text;
}

void match_ports(std::span<const Port> ports, std::span<const InputTensor> tensors,
                 std::span<const void*> pointers) {
  LOCKSTEP_ASSERT(pointers.size() == ports.size());
  std::fill(pointers.begin(), pointers.end(), nullptr);
  for (const InputTensor& t : tensors) {
    size_t i = 0;
    while (i < ports.size() && ports[i].name != t.port) ++i;
    if (i == ports.size()) refuse_tensors(ports, fmt::format("no port is called \"{}\"", t.port));
    const TensorSpec& spec = ports[i].spec;
    if (t.dtype != spec.dtype || t.bytes != spec.bytes())
      refuse_tensors(ports, fmt::format("{} takes {} bytes of {}, was given {} of {}", t.port, spec.bytes(),
                                        name(spec.dtype), t.bytes, name(t.dtype)));
    pointers[i] = t.data ? t.data : &t;  // no samples, no memory
  }
  for (size_t i = 0; i < ports.size(); ++i)
    if (ports[i].read && !pointers[i])
      refuse_tensors(ports, fmt::format("{} was given no tensor", ports[i].name));
}

}  // namespace lockstep
