// SPDX-License-Identifier: Apache-2.0
// Times every GPU kernel, libraries' too, on the models' shapes and prints JSON lines as they come.
//
//   gpu_programs kernel_timings [--batch N] [--few] [--device cuda|simt] --list
//   gpu_programs kernel_timings [...] [--repeats N] [--groups 3,4,9] [--without 3:cudnn,9:tiled]
//
// A group is an op of a net with its shape and dtype; its kernels take turns. --list, which needs no GPU, prints one
// object a group: group, net, shape, op, dtype, kernels. Else there is
//   {group, kernel, doing}            before each part of a kernel's work, so that one that never returns is known;
//   {group, kernel, failed}           where it throws: the group's others go on;
//   {group, kernel, ..., seconds}     of each that was timed: net, shape, op, dtype, library, flops, least_bytes (inputs
//                                     and outputs once), difference: ||out - out of the first|| / ||out of the first||,
//                                     where the first is the group's first kernel that ran, and seconds of a run, one
//                                     for each repeat;
//   {group, done}                     then; `declined` names the kernels that don't take the shape.
// Where the GPU itself is in error after a failure, which no call of this process mends, it ends with 70: whoever
// started it goes on in a new one, --without that kernel.
//
// A run is one of many launched by a graph, going round several sets of tensors that together are larger than the
// caches where memory allows, so that small tensors alone are read from L2. Time is that of the device's own events
// around a replay, while another one before it keeps the device busy. simt: runs on the host, by its clock.
#include "bench/gpu_kernels.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "bench/device_clock.h"
#include "bench/works.h"
#include "kernels/core/bf16.h"
#include "runtime/device/memory.h"

namespace lockstep {
namespace {

using nlohmann::json;

constexpr int64_t kMoreThanCaches = int64_t{256} << 20;
constexpr int kMostSets = 16, kMostRuns = 64;
constexpr double kReplaySeconds = 2e-3;  // of runs that one graph holds: far above what a launch of it takes

void say(const json& line) { std::cout << line.dump() << std::endl; }  // flushed: a reader waits for it

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

struct Group {
  const Work& work;
  DType dtype;
  std::vector<const KernelInfo*> kernels;
};

std::vector<Group> groups_of(const std::vector<Work>& works, Device device) {
  std::vector<Group> all;
  for (const Work& w : works)
    for (DType dtype : {DType::f32, DType::bf16}) {
      Group g{w, dtype, {}};
      for (const KernelInfo& info : Registry::builtin().all())
        if (info.op == w.op && info.device == device && info.dtype == dtype && is_for(info, w))
          g.kernels.push_back(&info);
      if (!g.kernels.empty()) all.push_back(std::move(g));
    }
  return all;
}

// A group's inputs as its kernels' layouts and dtypes have them: each is made once.
class HostInputs {
 public:
  explicit HostInputs(const Work& w) : work_(w) {}
  const AlignedBuffer& of(size_t input, const TensorSpec& spec) {
    auto [at, is_new] =
        made_.try_emplace({input, static_cast<int>(spec.layout), static_cast<int>(spec.dtype)});
    if (is_new) {
      at->second = AlignedBuffer(spec.bytes());
      fill_input(work_, input, {spec, at->second.data()});
    }
    return at->second;
  }

 private:
  const Work& work_;
  std::map<std::tuple<size_t, int, int>, AlignedBuffer> made_;
};

class Candidate {
 public:
  Candidate(const Work& w, const KernelInfo& kernel_info, DeviceRuntime& device)
      : info(kernel_info), tensors(tensors_for(w, kernel_info)), work_(w), device_(device) {}

  // False: the kernel declines.
  bool make(HostInputs& inputs) {
    kernel_ = info.make({work_.params, tensors.in, tensors.out});
    if (!kernel_) return false;
    workspace_ = DeviceMemory(device_, kernel_->workspace_bytes());
    const int64_t sets =
        info.device == Device::simt
            ? 1
            : std::clamp<int64_t>(kMoreThanCaches / std::max<int64_t>(tensors.bytes(), 1), 1, kMostSets);
    for (int64_t s = 0; s < sets; ++s) {
      Set& set = sets_.emplace_back();
      for (size_t i = 0; i < tensors.in.size(); ++i) {
        const TensorSpec& spec = tensors.in[i];
        void* const to = add(set, set.in, spec);
        if (s == 0)
          device_.copy_to_device(to, inputs.of(i, spec).data(), spec.bytes());
        else
          device_.copy_on_device(to, sets_[0].in[i].data, spec.bytes());
      }
      for (const TensorSpec& spec : tensors.out) add(set, set.out, spec);
      for (auto [from, to] : work_.in_place)
        set.out[static_cast<size_t>(to)] = set.in[static_cast<size_t>(from)];
    }
    device_.synchronize();
    return true;
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
  // Of one run.
  double seconds() {
    const auto work = [this] { recording_ ? recording_->replay() : run(runs_); };
    const auto before = [&] {
      if (recording_) work();
    };
    return seconds_on(device_, before, work) / runs_;
  }

  const KernelInfo& info;
  const WorkTensors tensors;

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
      kernel_->run({set.in, set.out, workspace_.data(), device_.stream()});
    }
  }
  void record() {
    if (!device_.can_record()) return;
    device_.begin_recording();
    try {
      run(runs_);
    } catch (...) {
      try {
        device_.end_recording();  // else the stream records on
      } catch (const Error&) {    // what failed is said below
      }
      throw;
    }
    recording_ = device_.end_recording();
  }

  const Work& work_;
  DeviceRuntime& device_;
  std::unique_ptr<Kernel> kernel_;
  DeviceMemory workspace_;
  std::vector<Set> sets_;
  std::unique_ptr<DeviceRuntime::Recording> recording_;
  int runs_ = 1;
};

// Libraries' kernels alone have no twin on the host.
bool is_library(const KernelInfo& info) {
  return Registry::builtin().find(info.op, info.name, Device::simt, info.dtype) == nullptr;
}

class GroupTimer {
 public:
  GroupTimer(size_t number, const Group& group, DeviceRuntime& device, int repeats)
      : number_(number), group_(group), device_(device), repeats_(repeats), inputs_(group.work) {}

  void run(const std::set<std::string>& without) {
    json declined = json::array();
    for (const KernelInfo* info : group_.kernels) {
      if (without.count(info->name)) continue;
      auto c = std::make_unique<Candidate>(group_.work, *info, device_);
      bool made = false;
      if (!attempt(*info, "make", [&] { made = c->make(inputs_); })) continue;
      if (made)
        add(std::move(c));
      else
        declined.push_back(info->name);
    }
    for (int r = 0; r < repeats_; ++r)
      for (Timed& t : timed_)
        if (!t.failed)
          t.failed = !attempt(t.candidate->info, "time",
                              [&] { t.entry["seconds"].push_back(t.candidate->seconds()); });
    for (const Timed& t : timed_)
      if (!t.failed) say(t.entry);
    say({{"group", number_}, {"done", true}, {"declined", declined}});
  }

 private:
  struct Timed {
    std::unique_ptr<Candidate> candidate;
    json entry;
    bool failed = false;
  };

  void add(std::unique_ptr<Candidate> c) {
    std::vector<std::vector<double>> results;
    if (!attempt(c->info, "run", [&] { results = c->results(); })) return;
    if (!attempt(c->info, "record", [&] { c->prepare(); })) return;
    if (expected_.empty()) expected_ = results;
    double most = 0;
    for (size_t o = 0; o < results.size(); ++o) most = std::max(most, difference(results[o], expected_[o]));
    const Work& w = group_.work;
    json entry = {{"group", number_},
                  {"net", w.net},
                  {"shape", w.shape},
                  {"op", w.op},
                  {"kernel", c->info.name},
                  {"dtype", name(group_.dtype)},
                  {"library", is_library(c->info)},
                  {"flops", w.flops},
                  {"least_bytes", c->tensors.bytes()},
                  {"difference", most},
                  {"seconds", json::array()}};
    timed_.push_back({std::move(c), std::move(entry)});
  }

  // A part of a kernel's work. What fails is said, and false returned; where the device is in error with it, ends.
  template <class F>
  bool attempt(const KernelInfo& info, const char* doing, const F& part) {
    say({{"group", number_}, {"kernel", info.name}, {"doing", doing}});
    try {
      part();
      return true;
    } catch (const std::exception& e) {
      say({{"group", number_}, {"kernel", info.name}, {"failed", e.what()}, {"doing", doing}});
    }
    try {
      device_.synchronize();
    } catch (const Error& e) {
      say({{"group", number_}, {"kernel", info.name}, {"broken", e.what()}});
      ::_exit(static_cast<int>(Exit::internal));  // no destructor: each would call a device in error
    }
    return false;
  }

  size_t number_;
  const Group& group_;
  DeviceRuntime& device_;
  int repeats_;
  HostInputs inputs_;
  std::vector<Timed> timed_;
  std::vector<std::vector<double>> expected_;
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream in(list);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

size_t group_number(const std::string& text, size_t count) {
  size_t end = 0, number = count;
  try {
    number = std::stoul(text, &end);
  } catch (const std::exception&) {
  }
  if (end != text.size() || number >= count)
    throw Error(Exit::usage, "E_GROUP",
                fmt::format("'{}' is no group's number; --list has 0 to {}", text, count - 1));
  return number;
}

}  // namespace

int time_gpu_kernels(int argc, char** argv) {
  namespace po = boost::program_options;
  int64_t batch = 128;
  int repeats = 5;
  std::string device_name = "cuda", wanted, left_out;
  po::options_description options("Options");
  options.add_options()("help", "this text")("list", "the groups, not timed")(
      "batch", po::value(&batch), "samples; default 128")("few", "one small shape of each op and net")(
      "repeats", po::value(&repeats), "default 5")("device", po::value(&device_name),
                                                   "cuda (default) or simt")(
      "groups", po::value(&wanted), "numbers, in this order; default all")("without", po::value(&left_out),
                                                                           "GROUP:KERNEL,...: not these");
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, options), given);
  po::notify(given);
  if (given.count("help")) {
    std::cout << options;
    return 0;
  }
  if (device_name != "cuda" && device_name != "simt")
    throw Error(Exit::usage, "E_DEVICE", fmt::format("--device {}: cuda or simt", device_name));
  const Device kind = device_name == "cuda" ? Device::cuda : Device::simt;

  const std::vector<Work> all_works = works(batch, given.count("few") > 0);
  const std::vector<Group> groups = groups_of(all_works, kind);
  if (given.count("list")) {
    for (size_t g = 0; g < groups.size(); ++g) {
      json kernels = json::array();
      for (const KernelInfo* info : groups[g].kernels) kernels.push_back(info->name);
      const Work& w = groups[g].work;
      say({{"group", g},
           {"net", w.net},
           {"shape", w.shape},
           {"op", w.op},
           {"dtype", name(groups[g].dtype)},
           {"kernels", kernels}});
    }
    return 0;
  }
  std::vector<size_t> order;
  for (const std::string& number : split(wanted)) order.push_back(group_number(number, groups.size()));
  if (!given.count("groups"))
    for (size_t g = 0; g < groups.size(); ++g) order.push_back(g);
  std::map<size_t, std::set<std::string>> without;
  for (const std::string& pair : split(left_out)) {
    const size_t colon = pair.find(':');
    if (colon == std::string::npos)
      throw Error(Exit::usage, "E_WITHOUT", fmt::format("--without '{}': expected GROUP:KERNEL", pair));
    without[group_number(pair.substr(0, colon), groups.size())].insert(pair.substr(colon + 1));
  }
  const auto device = kind == Device::cuda ? make_cuda_runtime(0) : make_host_runtime(kind);
  for (const size_t g : order) GroupTimer(g, groups[g], *device, repeats).run(without[g]);
  return 0;
}

}  // namespace lockstep
