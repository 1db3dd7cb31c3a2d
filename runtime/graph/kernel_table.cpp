// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/kernel_table.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

#include "kernels/core/bf16.h"
#include "kernels/core/cpu_target.h"
#include "kernels/core/kernel.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/comm/together.h"
#include "runtime/device/memory.h"
#include "runtime/files/file_lock.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

struct Request {
  std::vector<TensorSpec> in, out;
};

Request specs_of(const Graph& g, const Node& n) {
  Request r;
  for (ValueId v : n.in) r.in.push_back(g.value(v).spec);
  for (ValueId v : n.out) r.out.push_back(g.value(v).spec);
  return r;
}

std::string shapes_of(const Request& r) {
  std::string shapes;
  for (const auto& s : r.in) shapes += " " + s.text();
  return shapes;
}

bool independent(const KernelInfo& k) { return k.bit_exact.threads && k.bit_exact.shard; }

// Those that accept; the reference only where nothing else does. Where independent ones are asked for and some accept,
// one of them, which shapes alone decide: kernels round differently, so a race would decide the bits.
std::vector<std::string> accepting(const Graph& g, const Node& n, const KernelChoice& how) {
  const Request r = specs_of(g, n);
  const KernelRequest request{n.params, r.in, r.out, how.threads};
  const auto candidates = Registry::builtin().candidates(n.op, how.device, request);
  if (how.independent)
    for (const bool yielding : {false, true})
      for (const KernelInfo* k : candidates)
        if (independent(*k) && yielding == (k->yields && k->yields(request)) && k->make(request))
          return {k->name};
  std::vector<std::string> names;
  for (const KernelInfo* k : candidates) {
    if (k->is_reference() && !names.empty()) break;
    if (k->make(request)) names.push_back(k->name);
  }
  if (!names.empty()) return names;
  throw Error(
      Exit::internal, "E_NO_KERNEL",
      fmt::format("no {} kernel accepts {} ({}) of{}", name(how.device), n.op, n.params.text(), shapes_of(r)))
      .at("layer", n.name);
}

// Whether the kernel of that name exists and takes the node: a cache may be damaged, or of an older build.
bool accepts(const Graph& g, const Node& n, const std::string& kernel_name, const KernelChoice& how) {
  const Request r = specs_of(g, n);
  const KernelRequest request{n.params, r.in, r.out, how.threads};
  for (const KernelInfo* k : Registry::builtin().candidates(n.op, how.device, request))
    if (k->name == kernel_name) return k->make(request) != nullptr;
  return false;
}

// What a kernel takes on this rank, or why it is out of the race.
struct Timing {
  double seconds = std::numeric_limits<double>::infinity();
  std::string problem;
};

// The candidates for one node, timed on data of ordinary size.
class Race {
 public:
  Race(const Graph& g, const Node& n, const KernelChoice& how)
      : node_(n),
        how_(how),
        specs_(specs_of(g, n)),
        host_(how.runtime ? nullptr : make_host_runtime(how.device)),
        device_(how.runtime ? *how.runtime : *host_) {
    for (const auto& s : specs_.in) in_.push_back(allocate(s));
    for (const auto& s : specs_.out) out_.push_back(allocate(s));
  }

  // On processors in turns, so that other work slows each of them alike. They share a
  // workspace, as the ops of a step do: choosing takes little more memory than running. On a GPU, where little else runs
  // and workspaces may fill the memory, one after the other.
  std::vector<Timing> run(const std::vector<std::string>& names) {
    std::vector<Timing> timings;
    const size_t together = device_.shares_host_memory() ? names.size() : 1;
    for (size_t first = 0; first < names.size(); first += together) {
      std::vector<Runner> runners(std::min(together, names.size() - first));
      for (size_t i = 0; i < runners.size(); ++i) try_one(runners[i], names[first + i], &Race::prepare);
      if (shared_bytes_ > 0) shared_workspace_ = DeviceMemory(device_, shared_bytes_);
      for (int round = 0; round < kRounds; ++round)
        for (size_t i = 0; i < runners.size(); ++i)
          if (runners[i].work && runners[i].total < kLongest)
            try_one(runners[i], names[first + i], &Race::run_once);
      for (Runner& r : runners) timings.push_back(std::move(r.timing));
    }
    return timings;
  }

 private:
  // What the candidate does itself fails as Fails; all else, the device's and the peers', as it is.
  struct Fails {
    std::string why;
  };
  struct Runner {
    std::unique_ptr<Kernel> kernel;
    DeviceMemory workspace;
    std::unique_ptr<DeviceRuntime::Recording> recording;
    int calls = 1;               // of the kernel in one of `work`
    std::function<void()> work;  // none: it declines, or has failed
    double total = 0;            // seconds, of all that was timed
    Timing timing;
  };
  template <class F>
  static void its_own(const F& f) {
    try {
      f();
    } catch (const Error& e) {
      throw Fails{e.message()};
    }
  }

  View allocate(const TensorSpec& s) {
    memory_.emplace_back(device_, s.bytes());
    const auto fill = [&]<class T>(T) {
      std::vector<T> x(static_cast<size_t>(s.stored_elements()));
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = T(static_cast<float>((i * 2654435761u >> 8) & 0xFFFF) / 65536.f - 0.5f);
      device_.copy_to_device(memory_.back().data(), x.data(), s.bytes());
      device_.synchronize();
    };
    if (s.dtype == DType::f32) fill(float{});
    if (s.dtype == DType::bf16) fill(bf16{});
    return View{s, memory_.back().data()};
  }

  void try_one(Runner& r, const std::string& kernel_name, void (Race::*step)(Runner&, const std::string&)) {
    try {
      (this->*step)(r, kernel_name);
    } catch (const Fails& f) {
      r = Runner{.timing = {.problem = f.why}};
      recover(f.why, kernel_name);
    }
  }

  // With what is done once. On a GPU `work` is several runs in a row, as a step is run: one alone would be lost in its
  // own launch and in the clock's grain.
  void prepare(Runner& r, const std::string& kernel_name) {
    const KernelRequest request{node_.params, specs_.in, specs_.out, how_.threads};
    const KernelInfo* info =
        Registry::builtin().find(node_.op, kernel_name, how_.device, kernel_dtype(request));
    r.kernel = info ? info->make(request) : nullptr;
    if (!r.kernel) return;
    its_own([&] { r.workspace = DeviceMemory(device_, r.kernel->workspace_bytes()); });
    const auto run_in = [this, kernel = r.kernel.get()](void* workspace) {
      its_own([&] { kernel->run({in_, out_, workspace, device_.stream()}); });
    };
    run_in(r.workspace.data());
    device_.synchronize();
    if (device_.shares_host_memory()) {
      shared_bytes_ = std::max(shared_bytes_, r.workspace.bytes());
      r.workspace = DeviceMemory();
      r.work = [this, run_in] { run_in(shared_workspace_.data()); };
      return;
    }
    const std::function<void()> run = [run_in, workspace = r.workspace.data()] { run_in(workspace); };
    r.calls = std::clamp(static_cast<int>(kInARow / device_.time(run)), 2, 32);
    r.work = [run, calls = r.calls] {
      for (int i = 0; i < calls; ++i) run();
    };
    if (how_.recorded && device_.can_record()) {
      device_.begin_recording();
      r.work();
      its_own([&] { r.recording = device_.end_recording(); });
      r.work = [recording = r.recording.get()] { recording->replay(); };
    }
    for (double warm = 0; warm < kWarm;) warm += device_.time(r.work);
  }

  void run_once(Runner& r, const std::string&) {
    const double t = device_.time(r.work);
    r.timing.seconds = std::min(r.timing.seconds, t / r.calls);
    r.total += t;
  }

  void recover(const std::string& failure, const std::string& kernel_name) {
    try {
      device_.recover();
    } catch (const Error& lost) {
      throw Error(lost.exit(), lost.id(), fmt::format("{}; before it, {}", lost.message(), failure))
          .at("layer", node_.name)
          .at("op", node_.op)
          .at("kernel", kernel_name);
    }
  }

  static constexpr double kInARow = 1e-3, kWarm = 2e-3, kLongest = 5e-3;  // seconds
  static constexpr int kRounds = 10;

  const Node& node_;
  const KernelChoice& how_;
  Request specs_;
  std::unique_ptr<DeviceRuntime> host_;
  DeviceRuntime& device_;
  std::vector<DeviceMemory> memory_;
  DeviceMemory shared_workspace_;
  int64_t shared_bytes_ = 0;
  std::vector<View> in_, out_;
};

// What a node reads and writes is there at once. Said before anything of it is tried, which at such sizes takes minutes.
void expect_memory_for(const Graph& g, const Node& n) {
  int64_t bytes = 0;
  for (const auto& list : {n.in, n.out})
    for (const ValueId v : std::set<ValueId>(list.begin(), list.end()))
      bytes = checked_sum("the bytes of an op", {bytes, g.value(v).spec.bytes()});
  const int64_t memory = usable_memory();
  if (bytes <= memory) return;
  Error error(
      Exit::config, "E_TOO_LARGE",
      fmt::format("{} of{} takes {:.1f} GB, this machine has {:.1f} GB", n.op, shapes_of(specs_of(g, n)),
                  static_cast<double>(bytes) / 1e9, static_cast<double>(memory) / 1e9));
  if (!n.name.empty()) error.add_place("layer", n.name);
  error.set_hint("smaller images, fewer channels or a smaller batch need less");
  throw error;
}

// All ranks are here, and all know that each candidate fails on one of them.
[[noreturn]] void all_failed(const Graph& g, const Node& n, const KernelChoice& how,
                             const std::vector<std::string>& names, std::span<const Timing> timings,
                             Communicator& comm) {
  nlohmann::json mine = nlohmann::json::array();
  for (const Timing& t : timings) mine.push_back(t.problem);
  std::vector<nlohmann::json> all;
  for (const std::string& text : comm.gather_text(json_text(mine)))
    all.push_back(nlohmann::json::parse(text));
  std::string reasons;
  for (size_t k = 0; k < names.size(); ++k)
    for (size_t r = 0; r < all.size(); ++r) {
      const auto problem = all[r][k].get<std::string>();
      if (problem.empty()) continue;
      reasons +=
          fmt::format("; {}{}: {}", names[k], all.size() > 1 ? fmt::format(" on rank {}", r) : "", problem);
      break;
    }
  throw AgreedError(Error(Exit::internal, "E_KERNELS_FAIL",
                          fmt::format("each {} kernel fails for {} ({}) of{}{}", name(how.device), n.op,
                                      n.params.text(), shapes_of(specs_of(g, n)), reasons))
                        .at("layer", n.name));
}

// Each of these once: nets have many layers alike.
void log_failure(const Node& n, const std::string& kernel_name, const std::string& shapes,
                 const std::string& problem) {
  static std::set<std::string> logged;
  if (logged.insert(n.op + " " + kernel_name + " " + problem).second)
    spdlog::warn("kernel {} of {} is not taken for{}: {}", kernel_name, n.op, shapes, problem);
}

constexpr size_t kMostCacheBytes = 64 << 20;

nlohmann::json read_cache(const std::string& file) {
  try {
    auto j = nlohmann::json::parse(read_text_file(file, kMostCacheBytes), nullptr, false);
    if (j.is_object()) return j;
  } catch (const Error&) {
    // A missing or damaged cache is no reason to stop: it is made anew.
  }
  return nlohmann::json::object();
}

void write_cache(const std::string& file, const nlohmann::json& j) {
  try {
    make_shared_folder(parent_folder(file));
    write_file_atomically(file, json_text(j, 1) + "\n");
  } catch (const Error& e) {
    log_not_kept("the choice of kernels", e);
  }
}

// One job at a time chooses kernels on a host: two would disturb each other's timings, and the one that writes
// last would forget what the other chose. A cache that cannot be locked is used as it is, and so is one that a
// job which does not go on (stopped, say) keeps locked.
FileLock lock_cache(const std::string& file) {
  // More than the models of configs/ take to choose, less than the shortest deadline that ranks are given by default.
  constexpr std::chrono::seconds kPatience{30};
  const auto last = std::chrono::steady_clock::now() + kPatience;
  try {
    make_folders(parent_folder(file));
    while (true) {
      FileLock lock = FileLock::try_lock(file + ".lock");
      if (lock) return lock;
      if (std::chrono::steady_clock::now() >= last) {
        const std::string remove = lock.how_to_remove();
        if (!remove.empty())
          spdlog::warn("the cache of kernels is locked ({}) and used as it is: {}", lock.holder(), remove);
        return lock;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  } catch (const Error&) {
    return {};
  }
}

// The cache holds timings of this processor at this size of batch, among these candidates: a build with
// another kernel chooses anew.
std::string cache_key(const Graph& g, const Node& n, const KernelChoice& how) {
  int64_t batch = 0;
  for (ValueId v : n.in)
    if (g.value(v).batch) batch = g.value(v).spec.shape[0];
  const Request r = specs_of(g, n);
  std::string among;
  for (const KernelInfo* k :
       Registry::builtin().candidates(n.op, how.device, {n.params, r.in, r.out, how.threads}))
    among += (among.empty() ? "" : ",") + k->name;
  return fmt::format("{} {} {} threads={} batch={} of {}{}: {}", name(how.device), how.processor,
                     name(cpu_level()), how.threads, batch, how.independent ? "independent " : "", among,
                     kernel_signature(g, n));
}

std::vector<const Node*> missing_nodes(const KernelTable& table, const Graph& g) {
  std::vector<const Node*> missing;
  std::set<std::string> seen;
  for (const Node& n : g.nodes())
    if (n.kind == NodeKind::compute && !table.count(kernel_signature(g, n)) &&
        seen.insert(kernel_signature(g, n)).second)
      missing.push_back(&n);
  return missing;
}

}  // namespace

std::string kernel_signature(const Graph& g, const Node& n) {
  std::string s = n.op + "(" + n.params.text() + ")";
  auto add = [&](ValueId id) {
    const Value& v = g.value(id);
    Shape shape = v.spec.shape;
    if (v.batch) shape.set(0, 0);
    s += fmt::format(" {}{}:{}", name(v.spec.dtype), shape.text(), name(v.spec.layout));
  };
  for (ValueId v : n.in) add(v);
  s += " ->";
  for (ValueId v : n.out) add(v);
  return s;
}

void choose_first_kernels(KernelTable& table, const Graph& g, const KernelChoice& how) {
  for (const Node* n : missing_nodes(table, g)) table[kernel_signature(g, *n)] = accepting(g, *n, how)[0];
}

void choose_kernels(KernelTable& table, const Graph& g, const KernelChoice& how, Communicator& comm) {
  auto missing = missing_nodes(table, g);  // the same on every rank: graphs differ in batch sizes only
  if (how.device != Device::cuda)
    for (const Node* n : missing) expect_memory_for(g, *n);
  // What shapes decide is not looked up: a cache may be that of another build, with another rule.
  if (how.independent)
    std::erase_if(missing, [&](const Node* n) {
      const auto names = accepting(g, *n, how);
      if (names.size() == 1) table[kernel_signature(g, *n)] = names[0];
      return names.size() == 1;
    });
  if (missing.empty()) return;

  // What rank 0 remembers from earlier runs; "" where candidates must be made and, if several, timed.
  nlohmann::json cache = nlohmann::json::object();
  nlohmann::json known = nlohmann::json::array();
  FileLock lock;  // until the choices are written
  if (comm.rank() == 0) {
    if (!how.cache_file.empty()) {
      lock = lock_cache(how.cache_file);
      cache = read_cache(how.cache_file);
    }
    for (const Node* n : missing) {
      const auto it = cache.find(cache_key(g, *n, how));
      const std::string cached = it != cache.end() && it->is_string() ? it->get<std::string>() : "";
      known.push_back(!cached.empty() && accepts(g, *n, cached, how) ? cached : "");
    }
  }
  known = nlohmann::json::parse(comm.broadcast_text(json_text(known), 0));

  std::vector<std::vector<std::string>> names(missing.size());
  for (size_t i = 0; i < missing.size(); ++i)
    if (known[i].get<std::string>().empty()) {
      names[i] = accepting(g, *missing[i], how);
      if (!how.can_time()) names[i].resize(1);
    }

  std::vector<Timing> timings;
  for (size_t i = 0; i < missing.size(); ++i) {
    if (names[i].size() < 2) continue;
    const std::vector<Timing> of_node = Race(g, *missing[i], how).run(names[i]);
    for (size_t k = 0; k < of_node.size(); ++k)
      if (const std::string& problem = of_node[k].problem; !problem.empty())
        log_failure(*missing[i], names[i][k], shapes_of(specs_of(g, *missing[i])), problem);
    timings.insert(timings.end(), of_node.begin(), of_node.end());
  }
  std::vector<double> seconds;
  for (const Timing& t : timings) seconds.push_back(t.seconds);
  comm.allreduce(seconds, Reduce::max);

  size_t at = 0;
  bool timed = false;
  for (size_t i = 0; i < missing.size(); ++i) {
    std::string chosen = known[i].get<std::string>();
    if (chosen.empty()) {
      size_t best = 0;
      if (names[i].size() > 1) {
        for (size_t k = 1; k < names[i].size(); ++k)
          if (seconds[at + k] < seconds[at + best]) best = k;
        if (std::isinf(seconds[at + best]))
          all_failed(g, *missing[i], how, names[i], std::span(timings).subspan(at, names[i].size()), comm);
        at += names[i].size();
      }
      chosen = names[i][best];
      if (how.can_time()) cache[cache_key(g, *missing[i], how)] = chosen, timed = true;
    }
    table[kernel_signature(g, *missing[i])] = chosen;
  }
  if (timed && comm.rank() == 0 && !how.cache_file.empty()) write_cache(how.cache_file, cache);
}

std::vector<std::string> drop_unavailable(KernelTable& table, const Graph& g, const KernelChoice& how) {
  std::vector<std::string> dropped;
  for (const Node& n : g.nodes()) {
    if (n.kind != NodeKind::compute) continue;
    const auto it = table.find(kernel_signature(g, n));
    if (it == table.end()) continue;
    if (accepts(g, n, it->second, how)) continue;
    dropped.push_back(it->first);
    table.erase(it);
  }
  return dropped;
}

std::string default_kernel_cache() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg)
    return std::string(xdg) + "/lockstep/kernels.json";
  if (const char* home = std::getenv("HOME"); home && *home)
    return std::string(home) + "/.cache/lockstep/kernels.json";
  return "";
}

}  // namespace lockstep
