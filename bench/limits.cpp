// SPDX-License-Identifier: Apache-2.0
// What this machine can do, measured, as JSON: what the benches compare with.
//
//   limits
// processor, instruction_set, threads;
// peak: for one thread and for all, GFLOP/s of float32 and bf16 multiply-adds from registers (bf16: by the
//   better of AVX512-BF16 and AMX; null where there is neither);
// bandwidth: for each cache and the memory, GB/s that one thread and all read and copy of data half its size
//   (each thread's own where the cache is a core's; of the memory four times the last cache).
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/bandwidth.h"
#include "bench/program.h"
#include "kernels/core/cpu_target.h"
#include "kernels/peak/peak.h"
#include "runtime/device/cpu_topology.h"

using namespace lockstep;
using nlohmann::json;

namespace {

struct Cache {
  int64_t bytes = 0;
  bool shared = false;  // by several cores
};

// Data caches of the first core by level, as Linux describes them; empty where it does not.
std::map<int, Cache> caches() {
  std::map<int, Cache> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/devices/system/cpu/cpu0/cache", none)) {
    const auto word = [&](const char* file) {
      std::string text;
      std::ifstream(entry.path() / file) >> text;
      return text;
    };
    const std::string level = word("level"), type = word("type"), size = word("size");
    if (level.empty() || size.empty() || type == "Instruction") continue;
    const std::string cores = word("shared_cpu_list");
    const int shift = size.back() == 'M' ? 20 : size.back() == 'K' ? 10 : 0;
    found[std::stoi(level)] = {std::stoll(size) << shift, cores.find_first_of(",-") != std::string::npos};
  }
  return found;
}

json bandwidth_of(const std::string& level, int64_t bytes, bool shared, const std::set<int>& counts) {
  json j = {{"level", level}, {"bytes", bytes}};
  for (int threads : counts) {
    const Bandwidth b = measure_bandwidth(threads, shared ? bytes : bytes * threads);
    j["threads"][std::to_string(threads)] = {{"read_gb_s", b.read_gb_s}, {"copy_gb_s", b.copy_gb_s}};
  }
  return j;
}

int run(int argc, char** argv) {
  namespace po = boost::program_options;
  po::options_description options("Options");
  options.add_options()("help,h", "this text");
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, options), given);
  if (given.count("help")) {
    std::cout << "limits: what this machine can do, measured, as JSON\n\n" << options;
    return 0;
  }
  apply_cpu_level_from_environment();
  const int all = threads_per_rank(0, 1);
  const std::set<int> counts = {1, all};
  json peak, bandwidth = json::array();
  for (int threads : counts) {
    const Bf16Peak bf16 = measure_bf16_peak(threads);
    const double best = std::max(bf16.avx512_gflops, bf16.amx_gflops);
    peak[std::to_string(threads)] = {{"fp32_gflops", measure_peak_gflops(threads)},
                                     {"bf16_gflops", best > 0 ? json(best) : json()}};
  }
  int64_t last = 32 << 20;
  for (const auto& [level, cache] : caches()) {
    bandwidth.push_back(bandwidth_of(fmt::format("L{}", level), cache.bytes / 2, cache.shared, counts));
    last = cache.bytes;
  }
  bandwidth.push_back(bandwidth_of("memory", 4 * std::max<int64_t>(last, 32 << 20), true, counts));
  const json j = {{"processor", processor_name()},
                  {"instruction_set", name(cpu_level())},
                  {"threads", all},
                  {"peak", peak},
                  {"bandwidth", bandwidth}};
  std::cout << j.dump(1) << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return program("limits", run, argc, argv); }
