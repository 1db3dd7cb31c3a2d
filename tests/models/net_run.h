// SPDX-License-Identifier: Apache-2.0
// Builds a net into a graph, with gradients if wanted, gives its tensors their values and runs it.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/passes.h"
#include "runtime/training/step_graph.h"

namespace lockstep::testing {

class NetRun {
 public:
  // The graph to add nodes to, outside training.
  ModelContext& context() { return context_; }

  // Inputs, of which dimension 0 is the batch. Numbers are handed over as parameters are, so that they take
  // part in the layouts.
  ValueId input(const std::string& name, const Shape& shape, std::vector<float> values) {
    const ValueId v = builder_.parameter(name, shape, {});
    graph_.value(v).batch = true;
    given_[name] = std::move(values);
    return v;
  }
  ValueId input(const std::string& name, const Shape& shape, std::vector<int32_t> values) {
    numbers_[name] = std::move(values);
    return builder_.input(name, {DType::i32, shape, Layout::plain}, true);
  }

  // Computes y, and with `dy` the gradients of sum(y * dy) for every parameter: "y", "grad.<parameter>".
  // `fill` gives a parameter its values.
  void run(ValueId y, const std::function<void(const FlatEntry&, std::span<float>)>& fill,
           const std::vector<float>& dy = {}) {
    ValueId gradient = dy.empty() ? kNoValue : input("dy", builder_.spec(y).shape, dy);
    graph_ = assign_layouts(graph_, {&y, &gradient});
    std::vector<std::pair<ValueId, std::string>> outputs;
    if (gradient != kNoValue) {
      std::vector<ValueId> wanted = graph_.values_in(Storage::parameter);
      std::erase_if(wanted, [&](ValueId v) { return given_.contains(graph_.value(v).name); });
      const ValueId seed = builder_.reorder(gradient, builder_.spec(y).layout);
      for (auto [p, d] : append_gradients(builder_, {{y, seed}}, wanted)) {
        if (d == kNoValue) throw std::runtime_error("no gradient of " + graph_.value(p).name);
        outputs.emplace_back(d, "grad." + graph_.value(p).name);
      }
    }
    outputs.emplace_back(y, "y");
    for (const auto& [value, name] : outputs)
      graph_.value(value).storage = Storage::output, graph_.value(value).name = name;

    model_ =
        std::make_unique<ModelState>(make_parameter_table(graph_), ModelArrays{.gradients = false}, *comm_);
    for (const FlatEntry& e : model_->table.parameters) {
      const auto values = model_->parameter(e.name);
      if (const auto found = given_.find(e.name); found != given_.end())
        std::copy(found->second.begin(), found->second.end(), values.begin());
      else
        fill(e, values);
    }
    const KernelChoice how{Device::cpu, 2, "test", ""};
    KernelTable table;
    const auto plan =
        std::make_shared<Plan>(compile(graph_, table, how, [&](KernelTable& t, const Graph& graph) {
          choose_first_kernels(t, graph, how);
        }));
    executor_ = std::make_unique<Executor>(*model_, *comm_, *comm_, how, *device_);
    bound_ = &executor_->bind(plan);
    StepInputs inputs;
    for (const auto& [name, values] : numbers_) inputs.set(name, values);
    executor_->run(*bound_, inputs);
  }

  // In PyTorch's order.
  std::vector<float> output(const std::string& name) const {
    const View& view = executor_->output(*bound_, name);
    const int64_t per = view.spec.shape.elements_from(1);
    std::vector<float> values(static_cast<size_t>(view.spec.shape.elements()));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      values[i] = view.as<float>()[view.spec.offset(at / per, at % per)];
    }
    return values;
  }

 private:
  Graph graph_;
  GraphBuilder builder_{graph_};
  ModelContext context_{builder_, false};
  std::map<std::string, std::vector<float>> given_;
  std::map<std::string, std::vector<int32_t>> numbers_;
  std::unique_ptr<Communicator> comm_ = make_self_communicator();
  std::unique_ptr<DeviceRuntime> device_ = make_host_runtime(Device::cpu);
  std::unique_ptr<ModelState> model_;
  std::unique_ptr<Executor> executor_;
  Executor::Bound* bound_ = nullptr;
};

}  // namespace lockstep::testing
