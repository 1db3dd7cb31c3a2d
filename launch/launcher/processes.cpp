// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/processes.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "runtime/files/path.h"

namespace lockstep {
namespace {

// A file of /proc, whose process may be gone or somebody else's: then nothing.
std::string contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The value of a variable among `environment`, each of whose entries begins with a zero byte.
std::string value_of(const std::string& environment, const std::string& name) {
  const std::string entry = '\0' + name + '=';
  const size_t at = environment.find(entry);
  return at == std::string::npos ? "" : environment.c_str() + at + entry.size();
}

// `stat`: "PID (NAME) STATE ...", where the name may hold anything.
JobProcess process(int pid, const std::string& environment, const std::string& stat) {
  const size_t begin = stat.find('('), end = stat.rfind(')');
  JobProcess p{pid, -1, "", false};
  if (const std::string rank = value_of(environment, "OMPI_COMM_WORLD_RANK"); !rank.empty())
    p.rank = std::atoi(rank.c_str());
  if (begin == std::string::npos || end + 2 >= stat.size()) return p;
  p.name = stat.substr(begin + 1, end - begin - 1);
  p.stopped = stat[end + 2] == 'T' || stat[end + 2] == 't';
  return p;
}

void kill_those(const std::string& reports, bool ranks_only) {
  using Clock = std::chrono::steady_clock;
  const auto limit = Clock::now() + std::chrono::seconds(2);
  for (bool any = true; any && Clock::now() < limit;) {
    any = false;
    for (const JobProcess& p : job_processes(reports))
      if (p.rank >= 0 || !ranks_only) {
        ::kill(p.pid, SIGKILL);
        any = true;
      }
    if (any) ::usleep(5'000);
  }
}

}  // namespace

std::vector<JobProcess> job_processes(const std::string& reports) {
  std::vector<JobProcess> found;
  for (const std::string& name : names_in("/proc")) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string folder = "/proc/" + name, environment = '\0' + contents(folder + "/environ");
    if (value_of(environment, "LOCKSTEP_REPORT") == reports)
      found.push_back(process(std::atoi(name.c_str()), environment, contents(folder + "/stat")));
  }
  return found;
}

void kill_ranks(const std::string& reports) { kill_those(reports, true); }
void kill_all(const std::string& reports) { kill_those(reports, false); }

}  // namespace lockstep
