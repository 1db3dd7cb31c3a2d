// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/allocation.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <sstream>

#include "kernels/core/error.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

constexpr size_t kMostNodes = 100'000;

std::string variable(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const char* value = std::getenv(name); value && *value) return value;
  return "";
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// The items of a list between commas; those in brackets are no ends.
std::vector<std::string> items_of(const std::string& list) {
  std::vector<std::string> items(1);
  int depth = 0;
  for (const char c : list) {
    depth += c == '[' ? 1 : c == ']' ? -1 : 0;
    if (c == ',' && depth == 0)
      items.emplace_back();
    else
      items.back() += c;
  }
  return items;
}

bool to_number(const std::string& text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return !text.empty() && error == std::errc() && end == text.data() + text.size() && value >= 0;
}

// "08-11": the numbers, with as many digits as the first has. False: it is none.
bool add_range(const std::string& range, std::vector<std::string>& numbers) {
  const size_t dash = range.find('-');
  const std::string from = range.substr(0, dash),
                    to = dash == std::string::npos ? from : range.substr(dash + 1);
  int64_t first = 0, last = 0;
  if (!to_number(from, first) || !to_number(to, last) || last < first ||
      last - first >= static_cast<int64_t>(kMostNodes))
    return false;
  for (int64_t n = first; n <= last; ++n) numbers.push_back(fmt::format("{:0{}}", n, from.size()));
  return true;
}

// An item of a list of nodes: "rack[1-2]n[01-04]".
bool add_names(const std::string& item, const std::string& before, std::vector<std::string>& names) {
  const size_t open = item.find('['), close = item.find(']');
  if (open == std::string::npos) {
    names.push_back(before + item);
    return close == std::string::npos && !names.back().empty() && names.size() <= kMostNodes;
  }
  if (close == std::string::npos || close < open) return false;
  std::vector<std::string> numbers;
  for (const std::string& range : items_of(item.substr(open + 1, close - open - 1)))
    if (!add_range(range, numbers)) return false;
  return std::ranges::all_of(numbers, [&](const std::string& number) {
    return add_names(item.substr(close + 1), before + item.substr(0, open) + number, names);
  });
}

// "4(x2),3" as 4, 4, 3.
std::vector<int64_t> expand_counts(const std::string& list) {
  std::vector<int64_t> counts;
  for (const std::string& item : items_of(list)) {
    const size_t open = item.find("(x");
    int64_t count = 0, times = 1;
    if (!to_number(item.substr(0, open), count)) return {};
    if (open != std::string::npos &&
        (!item.ends_with(')') || !to_number(item.substr(open + 2, item.size() - open - 3), times)))
      return {};
    counts.insert(counts.end(), static_cast<size_t>(std::min<int64_t>(times, kMostNodes)), count);
  }
  return counts;
}

// What `srun --pty bash` starts has its own node alone. The steps of a batch script and an interactive shell are Slurm's
// reserved ones, at the upper end of 32 bits.
bool in_step_of_one_task() {
  int64_t step = 0;
  return to_number(variable({"SLURM_STEP_ID"}), step) && step < 0xfffffff0;
}

Error unreadable(const char* name, const std::string& value) {
  return Error(Exit::config, "E_ALLOCATION",
               fmt::format("{}={} names no nodes that can be told apart", name, value))
      .hint("name the hosts in the job: --set 'hosts=[\"NODE:RANKS\", ...]'");
}

std::vector<AllocatedNode> nodes_of_slurm(const std::string& list) {
  std::vector<AllocatedNode> nodes;
  for (const std::string& name : expand_nodes(list)) nodes.push_back({name, 1, 0});
  if (nodes.empty()) throw unreadable("SLURM_JOB_NODELIST", list);
  const auto tasks = expand_counts(variable({"SLURM_TASKS_PER_NODE"})),
             cpus = expand_counts(variable({"SLURM_JOB_CPUS_PER_NODE"}));
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (tasks.size() == nodes.size()) nodes[i].tasks = tasks[i];
    if (cpus.size() == nodes.size()) nodes[i].cpus = cpus[i];
  }
  return nodes;
}

// A name for each slot, those of a node anywhere.
std::vector<AllocatedNode> nodes_by_slots(const std::vector<std::string>& slots) {
  std::vector<AllocatedNode> nodes;
  for (const std::string& name : slots) {
    auto node = std::ranges::find(nodes, name, &AllocatedNode::name);
    if (node == nodes.end()) node = nodes.insert(nodes.end(), {name, 0, 0});
    ++node->tasks;
  }
  return nodes;
}

// "nodeA 2 nodeB 4"
std::vector<AllocatedNode> nodes_by_pairs(const std::string& text) {
  const auto words = words_of(text);
  std::vector<AllocatedNode> nodes;
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    AllocatedNode node{words[i], 0, 0};
    if (!to_number(words[i + 1], node.tasks)) break;
    nodes.push_back(node);
  }
  if (nodes.empty() || nodes.size() * 2 != words.size()) throw unreadable("LSB_MCPU_HOSTS", text);
  return nodes;
}

// Every node has one rank; one after the other, the rest go where most places are free.
std::vector<int64_t> shares(int64_t ranks, const std::vector<int64_t>& places) {
  std::vector<int64_t> taken(places.size(), 1);
  for (auto r = static_cast<int64_t>(places.size()); r < ranks; ++r) {
    size_t most = 0;
    for (size_t i = 1; i < places.size(); ++i)
      if (places[i] - taken[i] > places[most] - taken[most]) most = i;
    ++taken[most];
  }
  return taken;
}

}  // namespace

bool in_batch_job() { return !variable({"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"}).empty(); }

std::vector<std::string> expand_nodes(const std::string& list) {
  std::vector<std::string> names;
  for (const std::string& item : items_of(list))
    if (!add_names(item, "", names)) return {};
  return names;
}

std::vector<AllocatedNode> allocated_nodes() {
  if (in_step_of_one_task()) return {};
  if (const auto list = variable({"SLURM_JOB_NODELIST", "SLURM_NODELIST"}); !list.empty())
    return nodes_of_slurm(list);
  if (const auto file = variable({"PBS_NODEFILE"}); !file.empty())
    return nodes_by_slots(words_of(read_text_file(file, 16 << 20)));
  if (const auto pairs = variable({"LSB_MCPU_HOSTS"}); !pairs.empty()) return nodes_by_pairs(pairs);
  return nodes_by_slots(words_of(variable({"LSB_HOSTS"})));
}

Job on_allocated_nodes(Job job) {
  if (job.instance_count < 2 || !job.hosts.empty() || !job.hostfile.empty()) return job;
  const std::vector<AllocatedNode> nodes = allocated_nodes();
  if (nodes.size() < 2) return job;
  std::vector<int64_t> tasks, cpus;
  for (const AllocatedNode& node : nodes)
    tasks.push_back(node.tasks), cpus.push_back(std::max(node.tasks, node.cpus));
  const int64_t asked = std::reduce(tasks.begin(), tasks.end()), most = std::reduce(cpus.begin(), cpus.end());
  const auto count = static_cast<int64_t>(nodes.size());
  if (job.instance_count < count || job.instance_count > most)
    throw Error(Exit::config, "E_ALLOCATION",
                fmt::format("instance_count: {}, and the batch system has given {} nodes with {} places for "
                            "ranks",
                            job.instance_count, count, most))
        .hint(job.instance_count < count
                  ? fmt::format("ask for {} nodes, or name the hosts: --set 'hosts=[\"{}:{}\"]'",
                                job.instance_count, nodes[0].name, job.instance_count)
                  : fmt::format("ask for more, or --set instance_count={}", most));
  const auto taken = shares(job.instance_count, asked >= job.instance_count ? tasks : cpus);
  for (size_t i = 0; i < nodes.size(); ++i)
    job.hosts.push_back(fmt::format("{}:{}", nodes[i].name, taken[i]));
  return job;
}

}  // namespace lockstep
