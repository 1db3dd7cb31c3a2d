// SPDX-License-Identifier: Apache-2.0
// Runs the GPU kernels, watched, on the models' shapes and prints what their memory accesses would cost a
// GPU (kernels/gpu/watch/counters.h), as JSON. bench/cuda_report makes a table of it.
//
//   cuda_counts [--batch N] [--few]
// One object a kernel and shape:
//   net, shape, op, kernel, dtype, flops, least_bytes (inputs and outputs once), launches: [
//     {name, launches, blocks, threads, dynamic_shared, bytes_read, bytes_written (each byte once a launch),
//      global: {requests, moved, least} in sectors, shared: {...} in passes,
//      places: [{place, space, write, requests, moved, least}]  those that move more than least, worst
//      first}]
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/program.h"
#include "bench/works.h"
#include "kernels/gpu/watch/watch.h"

namespace lockstep {
namespace {

using gpu_watch::RequestCount;
using gpu_watch::Space;
using nlohmann::json;

// Memory with room on both sides, so that an overrun is one.
class Tensor {
 public:
  Tensor(const TensorSpec& spec, const std::string& name)
      : bytes_(static_cast<size_t>(spec.bytes()) + 2 * kMargin + 64), spec_(spec) {
    auto at = reinterpret_cast<uintptr_t>(bytes_.data()) + kMargin;
    data_ = reinterpret_cast<void*>((at + 63) / 64 * 64);
    allowed_ = std::make_unique<gpu_watch::Allocation>(data_, spec.bytes(), name);
  }
  View view() const { return {spec_, data_}; }

 private:
  static constexpr size_t kMargin = 4096;
  std::vector<std::byte> bytes_;
  TensorSpec spec_;
  void* data_;
  std::unique_ptr<gpu_watch::Allocation> allowed_;
};

json to_json(const RequestCount& c) {
  return {{"requests", c.requests}, {"moved", c.moved}, {"least", c.least}};
}

json to_json(const gpu_watch::KernelCount& k) {
  json places = json::array();
  auto worst = k.places;
  std::sort(worst.begin(), worst.end(), [](const auto& a, const auto& b) {
    return a.count.moved - a.count.least > b.count.moved - b.count.least;
  });
  for (const auto& p : worst) {
    if (p.count.moved == p.count.least) continue;
    json place = to_json(p.count);
    place.update(
        {{"place", p.place}, {"space", p.space == Space::global ? "global" : "shared"}, {"write", p.write}});
    places.push_back(place);
  }
  return {{"name", k.kernel},
          {"launches", k.launches},
          {"blocks", k.blocks},
          {"threads", k.threads},
          {"dynamic_shared", k.dynamic_shared},
          {"bytes_read", k.bytes_read},
          {"bytes_written", k.bytes_written},
          {"global", to_json(k.total(Space::global))},
          {"shared", to_json(k.total(Space::shared))},
          {"places", places}};
}

// Null where the kernel declines.
json count(const Work& w, const KernelInfo& info) {
  const WorkTensors t = tensors_for(w, info);
  const auto kernel = info.make({w.params, t.in, t.out});
  if (!kernel) return nullptr;
  std::vector<std::unique_ptr<Tensor>> memory;
  std::vector<View> in, out;
  for (size_t i = 0; i < t.in.size(); ++i) {
    memory.push_back(std::make_unique<Tensor>(t.in[i], fmt::format("input {}", i)));
    in.push_back(memory.back()->view());
    fill_input(w, i, in.back());
  }
  for (size_t o = 0; o < t.out.size(); ++o) {
    memory.push_back(std::make_unique<Tensor>(t.out[o], fmt::format("output {}", o)));
    out.push_back(memory.back()->view());
  }
  for (auto [from, to] : w.in_place) out[static_cast<size_t>(to)] = in[static_cast<size_t>(from)];
  const Tensor workspace({DType::u8, {kernel->workspace_bytes()}, Layout::plain}, "the workspace");
  gpu_watch::Counting counting;
  kernel->run({in, out, workspace.view().data});
  json launches = json::array();
  for (const auto& k : counting.take()) launches.push_back(to_json(k));
  const auto findings = gpu_watch::take_findings();
  if (!findings.empty()) throw Error(Exit::internal, "E_WATCH", findings[0].text());
  return {{"net", w.net},
          {"shape", w.shape},
          {"op", w.op},
          {"kernel", info.name},
          {"dtype", name(info.dtype)},
          {"flops", w.flops},
          {"least_bytes", t.bytes()},
          {"launches", launches}};
}

int run(int argc, char** argv) {
  namespace po = boost::program_options;
  int64_t batch = 1;
  size_t part = 0, parts = 1;
  po::options_description options("Options");
  options.add_options()("help", "this text")("batch", po::value(&batch), "samples; default 1")(
      "few", "one small shape of each op and net")(
      "parts", po::value(&parts), "count only one of so many parts")("part", po::value(&part),
                                                                     "which, from 0 on");
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, options), given);
  po::notify(given);
  if (given.count("help")) {
    std::cout << options;
    return 0;
  }
  if (part >= parts) throw Error(Exit::usage, "E_OPTION", "--part is counted from 0 to --parts - 1");
  json all = json::array();
  size_t number = 0;
  for (const Work& w : works(batch, given.count("few") > 0))
    for (const KernelInfo& info : watched_registry().all()) {
      if (info.op != w.op || !is_for(info, w) || number++ % parts != part) continue;
      json counted = count(w, info);
      if (counted.is_null()) continue;
      counted["number"] = number;
      all.push_back(std::move(counted));
    }
  std::cout << all.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::program("cuda_counts", lockstep::run, argc, argv); }
