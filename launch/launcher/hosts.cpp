// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/hosts.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <map>
#include <sstream>

#include "launch/job/scalar.h"
#include "launch/launcher/allocation.h"
#include "launch/launcher/ask_program.h"
#include "launch/launcher/resolver.h"
#include "runtime/files/host_name.h"
#include "runtime/files/path.h"
#include "runtime/files/utf8.h"

namespace lockstep {
namespace {

struct NamedHost {
  std::string name, login, where;  // login: "USER@HOST"; where: "hosts[0]", "cluster.txt:3"
};

std::vector<NamedHost> hosts_in(const std::string& hostfile, int64_t ranks) {
  std::vector<NamedHost> hosts;
  std::istringstream lines(read_text_file(hostfile, 1 << 20));
  int64_t slots = 0, number = 0;
  bool all_counted = true;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name;
    if (!(words >> name)) continue;
    // Nodes of an allocation by their numbers, and those left out, are not names.
    if (name[0] != '+' && name[0] != '^')
      hosts.push_back({name.substr(name.find('@') + 1), name, fmt::format("{}:{}", hostfile, number)});
    int64_t here = 0;
    for (std::string word; words >> word;)
      if (word.starts_with("slots=") && !job::parse_integer(word.substr(6), here).empty()) here = 0;
    all_counted &= here > 0;
    slots += here;
  }
  if (all_counted && !hosts.empty() && slots < ranks)
    throw Error(Exit::config, "E_JOB_CONFLICT", fmt::format("{} slots for instance_count {}", slots, ranks))
        .at("file", hostfile);
  return hosts;
}

std::vector<NamedHost> hosts_of(const Job& job) {
  if (!job.hostfile.empty()) return hosts_in(job.hostfile, job.instance_count);
  std::vector<NamedHost> hosts;
  for (size_t i = 0; i < job.hosts.size(); ++i) {
    const std::string name = job.hosts[i].substr(0, job.hosts[i].rfind(':'));
    hosts.push_back({name, name, fmt::format("hosts[{}]", i)});
  }
  return hosts;
}

// Why a name has no address, by name.
std::map<std::string, std::string> without_address(const std::vector<std::string>& names) {
  std::map<std::string, std::string> problems;
  for (const auto& [name, found] : look_up(names))
    if (!found.problem.empty()) problems[name] = found.problem;
  return problems;
}

// The name that ssh's configuration has for it; empty: a proxy on the way knows it.
std::string name_by_ssh(const std::string& name) {
  std::istringstream lines(ask_program({"ssh", "-G", "--", name}));
  std::string found = name;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("hostname ")) found = line.substr(9);
    if ((line.starts_with("proxyjump ") || line.starts_with("proxycommand ")) && !line.ends_with(" none"))
      return "";
  }
  return found;
}

constexpr const char* kAgentVariable = "OMPI_MCA_plm_rsh_agent";

bool names_are_not_ours() { return in_batch_job() || std::getenv(kAgentVariable) != nullptr; }

// The command by which mpirun runs others on `host`.
std::vector<std::string> remote_shell(const std::string& host) {
  std::vector<std::string> words;
  if (const char* agent = std::getenv(kAgentVariable)) {
    std::istringstream in(std::string(agent).substr(0, std::string(agent).find(':')));  // "ssh -p 2222 : rsh"
    for (std::string word; in >> word;) words.push_back(word);
  }
  if (words.empty()) words = {"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=2"};
  words.push_back(host);
  return words;
}

bool answers(const std::string& host) {
  auto command = remote_shell(host);
  command.insert(command.end(), {"echo", "lockstep-is-here"});
  return ask_program(command).find("lockstep-is-here") != std::string::npos;
}

void expect_known(const std::vector<NamedHost>& hosts) {
  std::vector<std::string> names;
  for (const NamedHost& host : hosts)
    if (host.name != host_name() && std::ranges::find(names, host.name) == names.end())
      names.push_back(host.name);
  auto problems = without_address(names);
  std::map<std::string, std::string> other_names;
  std::vector<std::string> again;
  for (const auto& [name, problem] : problems) {
    other_names[name] = name_by_ssh(name);
    if (const std::string& other = other_names[name]; !other.empty() && other != name) again.push_back(other);
  }
  const auto of_others = without_address(again);
  std::erase_if(problems, [&](const auto& row) {
    const std::string& other = other_names[row.first];
    return other.empty() || (other != row.first && !of_others.contains(other));
  });
  std::vector<std::string> texts;
  for (const NamedHost& host : hosts)
    if (const auto found = problems.find(host.name); found != problems.end())
      texts.push_back(fmt::format("{}: {}: {}", host.where, printable(host.name), found->second));
  if (texts.empty()) return;
  throw Error(Exit::config, "E_JOB_HOST", fmt::format("{}", fmt::join(texts, "; ")))
      .hint("ranks are started there by ssh: names are those that `ssh NAME` takes");
}

}  // namespace

int64_t host_count(const Job& job) try {
  return std::max<int64_t>(1, static_cast<int64_t>(hosts_of(job).size()));
} catch (const Error&) {  // mpirun says what is wrong with a hostfile
  return 1;
}

std::string network_of_hosts(const Job& job) try {
  if (names_are_not_ours()) return "";
  std::vector<std::string> names;
  for (const NamedHost& host : hosts_of(job)) names.push_back(host.name);
  return network_of(names);
} catch (const Error&) {
  return "";
}

std::vector<std::string> silent_hosts(const Job& job) try {
  std::map<std::string, std::future<bool>> asked;
  if (!in_batch_job())
    for (const NamedHost& host : hosts_of(job))
      if (host.name != host_name() && host.name != "localhost" && !asked.contains(host.name))
        asked[host.name] = std::async(std::launch::async, answers, host.login);
  std::vector<std::string> silent;
  for (auto& [name, answer] : asked)
    if (!answer.get()) silent.push_back(name);
  return silent;
} catch (const Error&) {
  return {};
}

namespace {

template <class F>
void naming_the_key(const Job& job, F f) try {
  f();
} catch (Error& e) {
  const std::string key = job.hostfile.empty() ? "hosts" : "hostfile";
  e.add_place("job", job.where.contains(key) ? job.where.at(key) : job.file);
  e.add_place("key", key);
  throw;
}

}  // namespace

void require_places(const Job& job) {
  naming_the_key(job, [&] { hosts_of(job); });
}

void require_known_hosts(const Job& job) {
  naming_the_key(job, [&] {
    if (!names_are_not_ours()) expect_known(hosts_of(job));
  });
}

}  // namespace lockstep
