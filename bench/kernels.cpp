// Every kernel of convolution and matmul on the shapes of the models: GFLOP/s (2 per multiply-add of the
// definition, padding counted) and GB/s (inputs + outputs once), inputs warm in the cache where they fit.
//
//   kernel_bench --benchmark_filter='conv2d/.*/lanes'
// A name is op/shape/kernel/threads. LOCKSTEP_CPU chooses the instruction set.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/cpu_target.h"
#include "kernels/core/kernel.h"
#include "kernels/linear/linear.h"

namespace lockstep {
namespace {

struct Work {
  std::string op, shape;
  Params params;
  std::vector<TensorSpec> in, out;
  double flops = 0;
};

constexpr double kSlowForReference = 1e8;  // flops

TensorSpec f32(Shape s) { return {DType::f32, s, Layout::plain}; }

void add_conv(std::vector<Work>& all, const std::string& shape, const Conv2dParams& p, const Shape& x,
              const Shape& w) {
  const Shape y = {x[0], w[0], p.out_h(x[2], w[2]), p.out_w(x[3], w[3])};
  const double flops = 2.0 * static_cast<double>(y.elements() * w.elements_from(1));
  all.push_back({"conv2d", shape, p, {f32(x), f32(w), f32({w[0]})}, {f32(y)}, flops});
  all.push_back({"conv2d_input_grad", shape, p, {f32(y), f32(w)}, {f32(x)}, flops});
  all.push_back({"conv2d_weight_grad", shape, p, {f32(x), f32(y)}, {f32(w), f32({w[0]})}, flops});
}

void add_linear(std::vector<Work>& all, const std::string& shape, int64_t n, int64_t k, int64_t m) {
  const double flops = 2.0 * static_cast<double>(n * k * m);
  const TensorSpec x = f32({n, k}), w = f32({m, k}), y = f32({n, m}), b = f32({m});
  all.push_back({"linear", shape, LinearParams{}, {x, w, b}, {y}, flops});
  all.push_back({"linear_input_grad", shape, LinearParams{}, {y, w}, {x}, flops});
  all.push_back({"linear_weight_grad", shape, LinearParams{}, {x, y}, {w, b}, flops});
}

std::vector<Work> works() {
  std::vector<Work> all;
  const Conv2dParams same3{.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
  Conv2dParams depthwise = same3, stride2 = same3;
  depthwise.groups = 64;
  stride2.stride_h = stride2.stride_w = 2;
  add_conv(all, "mnist_conv1", {}, {64, 1, 28, 28}, {10, 1, 5, 5});
  add_conv(all, "mnist_conv2", {}, {64, 10, 12, 12}, {20, 10, 5, 5});
  add_conv(all, "cifar_3_to_16", same3, {64, 3, 32, 32}, {16, 3, 3, 3});
  add_conv(all, "cifar_16_to_16", same3, {64, 16, 32, 32}, {16, 16, 3, 3});
  add_conv(all, "resnet_64_to_64", same3, {16, 64, 32, 32}, {64, 64, 3, 3});
  add_conv(all, "resnet_64_to_128_stride_2", stride2, {16, 64, 32, 32}, {128, 64, 3, 3});
  add_conv(all, "depthwise_64", depthwise, {16, 64, 32, 32}, {64, 1, 3, 3});
  add_conv(all, "resnet_128_to_128", same3, {16, 128, 16, 16}, {128, 128, 3, 3});
  add_conv(all, "resnet_256_to_256", same3, {16, 256, 8, 8}, {256, 256, 3, 3});
  add_conv(all, "resnet_512_to_512", same3, {16, 512, 4, 4}, {512, 512, 3, 3});
  add_conv(all, "unet_128_to_128_at_32", same3, {4, 128, 32, 32}, {128, 128, 3, 3});
  add_conv(all, "unet_512_to_256_at_16", same3, {4, 512, 16, 16}, {256, 512, 3, 3});
  add_conv(all, "unet_256_to_256_at_8", same3, {4, 256, 8, 8}, {256, 256, 3, 3});
  add_conv(all, "unet_512_to_256_at_8_shortcut", {}, {4, 512, 8, 8}, {256, 512, 1, 1});
  add_linear(all, "mnist_320_to_10", 64, 320, 10);
  add_linear(all, "mnist_320_to_50", 64, 320, 50);
  add_linear(all, "mnist_50_to_10", 64, 50, 10);
  add_linear(all, "large_9216_to_128", 64, 9216, 128);
  add_linear(all, "square_1024", 256, 1024, 1024);
  return all;
}

struct Aligned {
  explicit Aligned(int64_t bytes)
      : data(std::aligned_alloc(64, (static_cast<size_t>(bytes) + 63) / 64 * 64), &std::free) {}
  std::unique_ptr<void, decltype(&std::free)> data;
};

void bench(benchmark::State& state, const Work& work, const KernelInfo& info, Layout layout, int threads) {
  std::vector<TensorSpec> in = work.in, out = work.out;
  const int64_t batch = work.in[0].shape[0];
  for (auto* specs : {&in, &out})
    for (auto& s : *specs) {
      const bool is_weight =
          work.op.find("weight_grad") != std::string::npos ? specs == &out : specs == &in && &s != &in[0];
      if (!is_weight && s.shape[0] == batch) s.layout = layout;
    }
  auto kernel = info.make({work.params, in, out, threads});
  if (!kernel) return state.SkipWithError("declined");
  std::vector<Aligned> memory;
  std::vector<View> in_views, out_views;
  std::mt19937 random(1);
  double bytes = 0;
  for (auto* specs : {&in, &out})
    for (auto& s : *specs) {
      memory.emplace_back(s.bytes());
      auto* data = static_cast<float*>(memory.back().data.get());
      for (int64_t i = 0; i < s.stored_elements(); ++i)
        data[i] = static_cast<float>(random() % 2048) * 1e-3f - 1;
      (specs == &in ? in_views : out_views).push_back({s, data});
      bytes += static_cast<double>(s.bytes());
    }
  const Aligned workspace(kernel->workspace_bytes() + 64);
  for (auto _ : state) kernel->run({in_views, out_views, workspace.data.get()});
  const auto rate = [&](double each) {
    return benchmark::Counter(each * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GFLOP/s"] = rate(work.flops);
  state.counters["GB/s"] = rate(bytes);
}

void register_benches() {
  static const std::vector<Work> all = works();
  for (const auto& work : all)
    for (const auto& info : Registry::builtin().all()) {
      if (info.op != work.op || info.device != Device::cpu) continue;
      if (info.is_reference() && work.flops > kSlowForReference) continue;
      const Layout layout = info.layout == LayoutClass::lanes  ? Layout::lanes
                            : info.layout == LayoutClass::nhwc ? Layout::nhwc
                                                               : Layout::plain;
      for (int threads : {1, static_cast<int>(std::thread::hardware_concurrency())}) {
        const std::string name = work.op + "/" + work.shape + "/" + info.name + "/" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(),
                                     [&work, &info, layout, threads](benchmark::State& state) {
                                       bench(state, work, info, layout, threads);
                                     })
            ->UseRealTime()
            ->MinTime(0.1);
        if (std::thread::hardware_concurrency() <= 1) break;
      }
    }
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  try {
    lockstep::apply_cpu_level_from_environment();
    benchmark::AddCustomContext("instruction set", lockstep::name(lockstep::cpu_level()));
    lockstep::register_benches();
  } catch (const lockstep::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.code();
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 64;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
