// SPDX-License-Identifier: Apache-2.0
// The kernels of a job's training step: every registered candidate of every op, on the shapes and in the
// threads that the plan has, and in the layouts that the candidates ask for.
//
//   kernel_bench configs/mnist_article.yaml
//   kernel_bench JOB --set hyperparameters.precision=bf16 --benchmark_filter='conv2d/'
// A name is op/layer/kernel/layout, the layer being the first that has the op in this shape. Inputs lie in
// the caches where they fit.
// Counters: GFLOP/s (two for each multiply-add of the definition), GB/s (inputs and outputs once), calls (of
// this op in this shape, in a step), chosen (1: the plan's kernel), threads. LOCKSTEP_CPU chooses the
// instruction set.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <iostream>
#include <map>
#include <memory>
#include <vector>

#include "bench/program.h"
#include "kernels/core/bf16.h"
#include "kernels/core/cpu_target.h"
#include "kernels/core/kernel.h"
#include "launch/commands/job_plan.h"
#include "runtime/device/memory.h"

namespace lockstep {
namespace {

// An op in one shape.
struct Work {
  const Node* node = nullptr;
  int64_t calls = 0;
  std::string name;  // op/layer
};

std::vector<Work> works(const Graph& g) {
  std::map<std::string, size_t> at;     // signature -> which
  std::map<std::string, int> of_layer;  // several in one layer are numbered
  std::vector<Work> all;
  for (const Node& n : g.nodes()) {
    if (n.kind != NodeKind::compute) continue;
    const auto [it, is_new] = at.emplace(kernel_signature(g, n), all.size());
    if (is_new) {
      std::string name = n.op + "/" + n.name;
      if (const int more = of_layer[name]++) name += fmt::format("#{}", more + 1);
      all.push_back({&n, 0, std::move(name)});
    }
    ++all[it->second].calls;
  }
  return all;
}

struct Operands {
  std::vector<TensorSpec> in, out;
  std::vector<std::string> in_memory, out_memory;  // operands of one name are one piece of memory
};

// What an operand shares with those that lie where it does: an op may write its result over an input.
std::string memory_of(const Plan& plan, ValueId v) {
  const auto root = static_cast<size_t>(plan.root[static_cast<size_t>(v)]);
  const Value& value = plan.graph.value(static_cast<ValueId>(root));
  if (plan.offset[root] >= 0) return fmt::format("arena {}", plan.offset[root]);
  return fmt::format("{} {}", static_cast<int>(value.storage), value.name);
}

// As the plan has them, or in the layout that a kernel of another layout class takes.
Operands operands(const Plan& plan, const Node& n, LayoutClass layout) {
  Operands o;
  const auto add = [&](ValueId v, std::vector<TensorSpec>& specs, std::vector<std::string>& memory) {
    const Value& value = plan.graph.value(v);
    TensorSpec s = value.spec;
    if (value.batch && value.storage != Storage::input) {  // the host writes those as it has them
      if (layout == LayoutClass::plain) s.layout = Layout::plain;
      if (layout == LayoutClass::lanes) s.layout = Layout::lanes;
      if (layout == LayoutClass::nhwc) s.layout = s.shape.rank() == 4 ? Layout::nhwc : Layout::plain;
    }
    specs.push_back(s);
    memory.push_back(memory_of(plan, v));
  };
  for (ValueId v : n.in) add(v, o.in, o.in_memory);
  for (ValueId v : n.out) add(v, o.out, o.out_memory);
  return o;
}

void fill(const TensorSpec& s, void* data) {
  const int64_t n = s.stored_elements();
  const auto number = [](int64_t i) {
    return static_cast<float>((static_cast<uint32_t>(i) * 2654435761U >> 8) & 0xFFFF) / 65536.f - 0.5f;
  };
  for (int64_t i = 0; i < n; ++i)
    if (s.dtype == DType::f32)
      static_cast<float*>(data)[i] = number(i);
    else if (s.dtype == DType::bf16)
      static_cast<bf16*>(data)[i] = bf16(number(i));  // others stay 0
}

// A kernel with all that it works on.
class Prepared {
 public:
  Prepared(const Operands& o, Kernel& kernel) : kernel_(kernel), workspace_(kernel.workspace_bytes() + 64) {
    std::map<std::string, int64_t> sizes;
    const auto each = [&](auto f) {
      for (size_t i = 0; i < o.in.size(); ++i) f(o.in[i], o.in_memory[i], in_);
      for (size_t i = 0; i < o.out.size(); ++i) f(o.out[i], o.out_memory[i], out_);
    };
    each([&](const TensorSpec& s, const std::string& name, auto&) {
      sizes[name] = std::max(sizes[name], s.bytes());
      bytes_ += static_cast<double>(s.bytes());
    });
    for (const auto& [name, size] : sizes) memory_.emplace(name, AlignedBuffer(size));
    each([&](const TensorSpec& s, const std::string& name, std::vector<View>& views) {
      views.push_back({s, memory_.at(name).data()});
      fill(s, views.back().data);
    });
  }
  void run() { kernel_.run({in_, out_, workspace_.data()}); }
  double bytes() const { return bytes_; }

 private:
  Kernel& kernel_;
  AlignedBuffer workspace_;
  std::map<std::string, AlignedBuffer> memory_;
  std::vector<View> in_, out_;
  double bytes_ = 0;  // of inputs and outputs once
};

// The library calls this several times for one figure, and large tensors take long to make.
Prepared& prepared(const Operands& o, Kernel& kernel) {
  static std::unique_ptr<Prepared> last;
  static const Kernel* of = nullptr;
  if (of != &kernel) {
    last = nullptr;  // before the next is made
    last = std::make_unique<Prepared>(o, kernel);
    of = &kernel;
    last->run();
  }
  return *last;
}

void bench(benchmark::State& state, const Operands& o, Kernel& kernel, double flops) {
  Prepared& p = prepared(o, kernel);
  for (auto _ : state) p.run();
  const auto rate = [](double each) {
    return benchmark::Counter(each * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GFLOP/s"] = rate(flops);
  state.counters["GB/s"] = rate(p.bytes());
}

std::string shapes(const Operands& o) {
  std::string text;
  for (const auto* specs : {&o.in, &o.out})
    for (const TensorSpec& s : *specs)
      if (s.shape.rank() > 1) text += (text.empty() ? "" : " ") + s.text();
  return text;
}

void register_work(const Plan& plan, const Work& work, int threads) {
  const Node& n = *work.node;
  struct Candidate {
    const KernelInfo* info;
    std::shared_ptr<Operands> operands;
    std::shared_ptr<Kernel> kernel;
  };
  std::vector<Candidate> candidates;
  const Operands planned = operands(plan, n, LayoutClass::any);
  const DType dtype = kernel_dtype({n.params, planned.in, planned.out});
  for (const KernelInfo& info : Registry::builtin().all()) {
    if (info.op != n.op || info.device != Device::cpu || info.dtype != dtype) continue;
    auto o = std::make_shared<Operands>(operands(plan, n, info.layout));
    const KernelRequest request{n.params, o->in, o->out, threads};
    const auto fitting = Registry::builtin().candidates(n.op, Device::cpu, request);
    if (std::find(fitting.begin(), fitting.end(), &info) == fitting.end()) continue;
    if (std::shared_ptr<Kernel> k = info.make(request))
      candidates.push_back({&info, std::move(o), std::move(k)});
  }
  const double flops = static_cast<double>(flops_of(plan.graph, n));
  for (const Candidate& c : candidates) {
    // References are for tests: they run where nothing else does.
    if (c.info->is_reference() && candidates.size() > 1) continue;
    const std::string name = fmt::format("{}/{}/{}", work.name, c.info->name, lockstep::name(c.info->layout));
    benchmark::RegisterBenchmark(name.c_str(), [c, flops, calls = work.calls,
                                                chosen = c.info->name == n.kernel,
                                                threads](benchmark::State& state) {
      bench(state, *c.operands, *c.kernel, flops);
      state.SetLabel(shapes(*c.operands));
      state.counters["calls"] = static_cast<double>(calls);
      state.counters["chosen"] = chosen;
      state.counters["threads"] = threads;
    })->UseRealTime();
  }
}

int run(int argc, char** argv) {
  namespace po = boost::program_options;
  benchmark::Initialize(&argc, argv);  // takes its own options out
  std::string file;
  std::vector<std::string> set;
  po::options_description options("Options"), all;
  options.add_options()("help", "this text")("set", po::value(&set)->value_name("KEY=VALUE"),
                                             "override a key of the job (repeatable)");
  all.add(options).add_options()("job", po::value(&file));
  po::variables_map given;
  po::store(po::command_line_parser(argc, argv)
                .options(all)
                .positional(po::positional_options_description().add("job", 1))
                .run(),
            given);
  po::notify(given);
  if (given.count("help")) {
    std::cout << "kernel_bench JOB [--set KEY=VALUE]... [--benchmark_...]\n\n" << options;
    return 0;
  }
  if (file.empty()) throw Error(Exit::usage, "E_OPTION", "which JOB?");
  apply_cpu_level_from_environment();
  set.emplace_back("device=cpu");
  const Job job = read_job(file, set);
  const JobPlan p = plan_job(job, true);
  const Plan& plan = p.training.back();
  const int threads = kernel_choice(job, static_cast<int>(job.instance_count)).threads;
  const std::vector<Work> found = works(plan.graph);
  for (const Work& w : found) register_work(plan, w, threads);
  benchmark::AddCustomContext("instruction set", name(cpu_level()));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::program("kernel_bench", lockstep::run, argc, argv); }
