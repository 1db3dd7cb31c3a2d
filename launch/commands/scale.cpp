// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "launch/job/scalar.h"
#include "models/model.h"
#include "runtime/comm/host_speed.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/training/step_timing.h"

namespace lockstep {
namespace {

constexpr int64_t kMostRanks = 1'000'000;
constexpr int64_t kMostMirrored = 512;  // batch norm holds the statistics of each

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  size_t begin = 0;
  for (size_t end; (end = text.find(',', begin)) != std::string::npos; begin = end + 1)
    words.push_back(text.substr(begin, end - begin));
  words.push_back(text.substr(begin));
  return words;
}

Error wrong(const char* option, const std::string& word, const std::string& what, const char* example) {
  return Error(Exit::usage, "E_OPTION", fmt::format("plan: {}: '{}': {}", option, word, what))
      .hint(fmt::format("for example {} {}", option, example));
}

int64_t rank_count(const char* option, const std::string& word, const char* example) {
  int64_t n = 0;
  if (const std::string problem = job::parse_integer(word, n); !problem.empty())
    throw wrong(option, word, problem, example);
  if (n < 1 || n > kMostRanks)
    throw wrong(option, word, fmt::format("expected 1..{} ranks", kMostRanks), example);
  return n;
}

constexpr const char *kScale = "--scale", *kLink = "--link";
constexpr const char *kScaleExample = "2,8,64,512", *kLinkExample = "100Gb,5us,8";

// A number and its unit, in units' terms.
double quantity(const std::string& word, const std::map<std::string, double>& units, const char* what) {
  const size_t end = word.find_first_not_of("0123456789.");
  const auto unit = units.find(end == std::string::npos ? "" : word.substr(end));
  double number = 0;
  if (unit == units.end() || !job::parse_number(word.substr(0, end), number).empty()) {
    std::string names;
    for (const auto& [name, scale] : units) names += (names.empty() ? "" : ", ") + name;
    throw wrong(kLink, word, fmt::format("expected {}, a number with one of {}", what, names), kLinkExample);
  }
  if (number <= 0) throw wrong(kLink, word, fmt::format("expected {} above 0", what), kLinkExample);
  return number * unit->second;
}

SessionOptions session_options(const Job& job, const JobPlan& plan, const KernelChoice& kernels) {
  SessionOptions o;
  o.objective = make_objective(job.model, input_shape(job.training, plan.data), job.hyperparameters);
  o.config = job.hyperparameters;
  o.kernels = kernels;
  return o;
}

std::string count_text(int64_t n, const char* what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

std::string algorithms_text(const ScalingPoint& p) {
  std::string text;
  for (const auto& [name, buckets] : p.algorithms)
    text += fmt::format("{}{}{}", text.empty() ? "" : "; ", name,
                        p.algorithms.size() > 1 ? " of " + count_text(buckets, "bucket") : "");
  return text;
}

}  // namespace

ScaleRequest parse_scale_request(const std::string& scale, const std::string& link) {
  if (scale.empty() || link.empty())
    throw Error(Exit::usage, "E_OPTION", "plan: --scale and --link go together")
        .hint(fmt::format("for example {} {} {} {}", kScale, kScaleExample, kLink, kLinkExample));
  ScaleRequest r;
  for (const std::string& word : split(scale)) r.ranks.push_back(rank_count(kScale, word, kScaleExample));
  const auto words = split(link);
  if (words.size() < 2 || words.size() > 3)
    throw wrong(kLink, link, "expected bandwidth, latency and, if wanted, ranks a host", kLinkExample);
  r.link.seconds_per_byte =
      1 / quantity(words[0], {{"Gb", 1e9 / 8}, {"Mb", 1e6 / 8}, {"GB", 1e9}, {"MB", 1e6}}, "a bandwidth");
  r.link.latency_seconds = quantity(words[1], {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}}, "a latency");
  if (words.size() == 3) r.ranks_per_host = static_cast<int>(rank_count(kLink, words[2], kLinkExample));
  return r;
}

Scaling predict_scaling(const Job& job, const JobPlan& plan, const ScaleRequest& request) {
  if (device_of(job) != Device::cpu)
    throw Error(Exit::config, "E_SCALE_DEVICE", "plan: --scale times the ops of device cpu only")
        .at("device", job.device)
        .hint("--set device=cpu");
  Scaling s{request};
  const KernelChoice kernels = kernel_choice(job, request.ranks_per_host);
  const SessionOptions options = session_options(job, plan, kernels);
  const int64_t batch = plan.nominal_batch;
  ScalingInput& in = s.input;
  // With the plan of most ranks, which holds every collective.
  const int64_t most = *std::max_element(request.ranks.begin(), request.ranks.end());
  in.event_ranks = static_cast<int>(std::min(most, kMostMirrored));
  const StepTiming alone = time_training_step(options, batch, in.event_ranks, 1);
  s.timed_steps = alone.steps;
  s.samples_per_rank = in.samples_per_rank =
      batch * micro_batches(job.hyperparameters, static_cast<int>(job.instance_count));
  in.events = alone.events;
  in.cores_per_host = usable_cores();
  in.threads_per_rank = kernels.threads;
  in.link = request.link;
  in.ranks_per_host = request.ranks_per_host;
  in.fixed_order = job.hyperparameters.shards.has_value();
  std::map<int64_t, double> seconds = {{1, alone.step_seconds}};
  for (const int64_t ranks : request.ranks) {
    const int64_t on_host = std::min<int64_t>(ranks, request.ranks_per_host);
    if (in.hosts.contains(on_host)) continue;
    // As many as have cores are tried; more take turns.
    const int64_t fitting = std::clamp<int64_t>(in.cores_per_host / in.threads_per_rank, 1, on_host);
    if (!seconds.contains(fitting))
      seconds[fitting] =
          time_training_step(options, batch, in.event_ranks, static_cast<int>(fitting)).step_seconds;
    const auto busy =
        static_cast<double>(std::max<int64_t>(in.cores_per_host, fitting * in.threads_per_rank));
    const double turns = std::max(1.0, static_cast<double>(on_host * in.threads_per_rank) / busy);
    in.hosts[on_host] = {std::max(1.0, seconds[fitting] / seconds[1]) * turns,
                         measure_host_speed(static_cast<int>(on_host), in.cores_per_host)};
  }
  for (const int64_t ranks : request.ranks) s.points.push_back(predict_step(in, ranks));
  return s;
}

nlohmann::json to_json(const Scaling& s) {
  nlohmann::json points = nlohmann::json::array();
  for (const ScalingPoint& p : s.points)
    points.push_back({{"ranks", p.ranks},
                      {"global_batch_size", p.ranks * s.samples_per_rank},
                      {"step_seconds", p.time.step},
                      {"compute_seconds", p.time.compute},
                      {"communication_seconds", p.time.communication},
                      {"exposed_seconds", p.time.exposed()},
                      {"samples_per_second", p.samples_per_second},
                      {"efficiency", p.efficiency},
                      {"binds", p.binds},
                      {"allreduce", p.algorithms}});
  nlohmann::json hosts = nlohmann::json::array();
  for (const auto& [ranks, host] : s.input.hosts)
    hosts.push_back({{"ranks", ranks},
                     {"slowdown", host.slowdown},
                     {"meeting_seconds", host.speed.meeting_seconds},
                     {"shared_sum_seconds_per_byte", host.speed.shared_sum_seconds_per_byte},
                     {"sum_seconds_per_byte", host.speed.sum_seconds_per_byte}});
  return {{"scaling", "weak"},
          {"samples_per_rank", s.samples_per_rank},
          {"threads_per_rank", s.input.threads_per_rank},
          {"ranks_per_host", s.request.ranks_per_host},
          {"link",
           {{"latency_seconds", s.request.link.latency_seconds},
            {"seconds_per_byte", s.request.link.seconds_per_byte}}},
          {"measured", {{"processor", processor_name()}, {"steps", s.timed_steps}, {"hosts", hosts}}},
          {"ranks", points}};
}

std::string to_text(const Scaling& s) {
  std::string text = fmt::format(
      "\nScaling, predicted: {} a rank whatever the rank count (weak scaling: the global batch grows with "
      "it); "
      "links of {:.4g} Gb/s and {:.4g} us between hosts of {}, each like this machine with {} a rank. Op "
      "times: "
      "medians of {} on made-up images.\n",
      count_text(s.samples_per_rank, "sample"), 8e-9 / s.request.link.seconds_per_byte,
      s.request.link.latency_seconds * 1e6, count_text(s.request.ranks_per_host, "rank"),
      count_text(s.input.threads_per_rank, "thread"), count_text(s.timed_steps, "step"));
  text += fmt::format("{:>8} {:>13} {:>10} {:>10} {:>10} {:>10} {:>12} {:>10}  {:<10} {}\n", "ranks",
                      "global batch", "step ms", "compute", "allreduce", "exposed", "samples/s", "efficiency",
                      "binds", "how");
  for (const ScalingPoint& p : s.points)
    text += fmt::format(
        "{:>8} {:>13} {:>10.3f} {:>10.3f} {:>10.3f} {:>10.3f} {:>12.1f} {:>9.1f}%  {:<10} {}\n", p.ranks,
        p.ranks * s.samples_per_rank, p.time.step * 1e3, p.time.compute * 1e3, p.time.communication * 1e3,
        p.time.exposed() * 1e3, p.samples_per_second, 100 * p.efficiency, p.binds, algorithms_text(p));
  return text;
}

}  // namespace lockstep
