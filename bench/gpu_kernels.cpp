// SPDX-License-Identifier: Apache-2.0
// Times every GPU kernel, libraries' too, on the models' shapes and prints JSON. bench/gpu makes a table of
// it.
//
//   gpu_kernels [--batch N] [--few] [--repeats N] [--device cuda|simt]
// One object a kernel and shape:
//   net, shape, op, kernel, dtype, library, flops, least_bytes (inputs and outputs once),
//   seconds: of a run, one for each repeat; difference: ||out - out of the first|| / ||out of the first||,
//   where the first is the first kernel listed of this op, shape and dtype.
// The kernels of a shape take turns. A run is one of many launched by a graph, going round several sets of
// tensors that together are larger than the caches where memory allows, so that small tensors alone are read
// from L2. simt: runs on the host, to see that all of it works.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/program.h"
#include "bench/works.h"
#include "kernels/core/bf16.h"
#include "runtime/device/device_runtime.h"
#include "runtime/device/memory.h"

namespace lockstep {
namespace {

using nlohmann::json;

constexpr int64_t kMoreThanCaches = int64_t{256} << 20;
constexpr int kMostSets = 16, kMostRuns = 64;
constexpr double kReplaySeconds = 2e-3;  // of runs that one graph holds: far above what a launch of it takes

// Up to 65536 elements, evenly spaced, in logical order.
std::vector<double> some_elements(const TensorSpec& spec, const void* data) {
  const int64_t n = spec.shape.elements(), step = std::max<int64_t>(1, n / 65536),
                per = spec.shape.elements_from(1);
  std::vector<double> all;
  for (int64_t i = 0; i < n; i += step) {
    const auto at = static_cast<size_t>(spec.offset(i / per, i % per));
    all.push_back(spec.dtype == DType::bf16 ? double(float(static_cast<const bf16*>(data)[at]))
                                            : double(static_cast<const float*>(data)[at]));
  }
  return all;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double off = 0, whole = 0;
  for (size_t i = 0; i < a.size(); ++i) off += (a[i] - b[i]) * (a[i] - b[i]), whole += b[i] * b[i];
  return whole > 0 ? std::sqrt(off / whole) : std::sqrt(off);
}

class Candidate {
 public:
  // `kernel` null: it declined.
  Candidate(const Work& w, const KernelInfo& kernel_info, DeviceRuntime& device)
      : info(kernel_info), tensors(tensors_for(w, kernel_info)), device_(device) {
    kernel = info.make({w.params, tensors.in, tensors.out});
    if (!kernel) return;
    workspace_ = DeviceMemory(device, kernel->workspace_bytes());
    const int64_t sets =
        info.device == Device::simt
            ? 1
            : std::clamp<int64_t>(kMoreThanCaches / std::max<int64_t>(tensors.bytes(), 1), 1, kMostSets);
    for (int64_t s = 0; s < sets; ++s) sets_.emplace_back();
    for (size_t i = 0; i < tensors.in.size(); ++i) {
      const AlignedBuffer host(tensors.in[i].bytes());
      fill_input(w, i, {tensors.in[i], host.data()});
      for (Set& set : sets_) {
        device.copy_to_device(add(set, set.in, tensors.in[i]), host.data(), host.bytes());
      }
      device.synchronize();
    }
    for (Set& set : sets_) {
      for (const TensorSpec& s : tensors.out) add(set, set.out, s);
      for (auto [from, to] : w.in_place) set.out[static_cast<size_t>(to)] = set.in[static_cast<size_t>(from)];
    }
  }

  // Of the outputs that hold numbers, after a first run.
  std::vector<std::vector<double>> results() {
    run(1);
    device_.synchronize();
    std::vector<std::vector<double>> all;
    for (const View& v : sets_[0].out) {
      if (v.spec.dtype != DType::f32 && v.spec.dtype != DType::bf16) continue;
      const AlignedBuffer host(v.spec.bytes());
      device_.copy_to_host(host.data(), v.data, v.spec.bytes());
      device_.synchronize();
      all.push_back(some_elements(v.spec, host.data()));
    }
    return all;
  }

  void prepare() {
    runs_ = 1;
    record();
    seconds();  // warms up
    runs_ = std::clamp(static_cast<int>(kReplaySeconds / seconds()), 1, kMostRuns);
    record();
    seconds();
  }
  double seconds() {
    using Clock = std::chrono::steady_clock;
    device_.synchronize();
    const auto started = Clock::now();
    if (recording_)
      recording_->replay();
    else
      run(runs_);
    device_.synchronize();
    return std::chrono::duration<double>(Clock::now() - started).count() / runs_;
  }

  const KernelInfo& info;
  WorkTensors tensors;
  std::unique_ptr<Kernel> kernel;

 private:
  struct Set {
    std::vector<DeviceMemory> memory;
    std::vector<View> in, out;
  };
  void* add(Set& set, std::vector<View>& views, const TensorSpec& spec) {
    set.memory.emplace_back(device_, spec.bytes());
    views.push_back({spec, set.memory.back().data()});
    return views.back().data;
  }
  void run(int runs) {
    for (int r = 0; r < runs; ++r) {
      const Set& set = sets_[static_cast<size_t>(r) % sets_.size()];
      kernel->run({set.in, set.out, workspace_.data(), device_.stream()});
    }
  }
  void record() {
    if (!device_.can_record()) return;
    device_.begin_recording();
    run(runs_);
    recording_ = device_.end_recording();
  }

  DeviceRuntime& device_;
  DeviceMemory workspace_;
  std::vector<Set> sets_;
  std::unique_ptr<DeviceRuntime::Recording> recording_;
  int runs_ = 1;
};

// Libraries' kernels alone have no twin on the host.
bool is_library(const KernelInfo& info) {
  return Registry::builtin().find(info.op, info.name, Device::simt, info.dtype) == nullptr;
}

void time_work(const Work& w, DType dtype, DeviceRuntime& device, int repeats, json& all) {
  std::vector<std::unique_ptr<Candidate>> candidates;
  for (const KernelInfo& info : Registry::builtin().all())
    if (info.op == w.op && info.device == device.device() && info.dtype == dtype && is_for(info, w))
      if (auto c = std::make_unique<Candidate>(w, info, device); c->kernel)
        candidates.push_back(std::move(c));
  if (candidates.empty()) return;
  std::vector<std::vector<double>> expected;
  std::vector<json> entries;
  for (auto& c : candidates) {
    const auto results = c->results();
    if (expected.empty()) expected = results;
    double most = 0;
    for (size_t o = 0; o < results.size(); ++o) most = std::max(most, difference(results[o], expected[o]));
    c->prepare();
    entries.push_back({{"net", w.net},
                       {"shape", w.shape},
                       {"op", w.op},
                       {"kernel", c->info.name},
                       {"dtype", name(dtype)},
                       {"library", is_library(c->info)},
                       {"flops", w.flops},
                       {"least_bytes", c->tensors.bytes()},
                       {"difference", most},
                       {"seconds", json::array()}});
  }
  for (int r = 0; r < repeats; ++r)
    for (size_t i = 0; i < candidates.size(); ++i) entries[i]["seconds"].push_back(candidates[i]->seconds());
  for (json& e : entries) all.push_back(std::move(e));
}

int run(int argc, char** argv) {
  namespace po = boost::program_options;
  int64_t batch = 128;
  int repeats = 5;
  std::string device_name = "cuda";
  po::options_description options("Options");
  options.add_options()("help", "this text")("batch", po::value(&batch), "samples; default 128")(
      "few", "one small shape of each op and net")("repeats", po::value(&repeats), "default 5")(
      "device", po::value(&device_name), "cuda (default) or simt");
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, options), given);
  po::notify(given);
  if (given.count("help")) {
    std::cout << options;
    return 0;
  }
  if (device_name != "cuda" && device_name != "simt")
    throw Error(Exit::usage, "E_DEVICE", fmt::format("--device {}: cuda or simt", device_name));
  const auto device = device_name == "cuda" ? make_cuda_runtime(0) : make_host_runtime(Device::simt);
  json all = json::array();
  for (const Work& w : works(batch, given.count("few") > 0))
    for (DType dtype : {DType::f32, DType::bf16}) time_work(w, dtype, *device, repeats, all);
  std::cout << all.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::program("gpu_kernels", lockstep::run, argc, argv); }
