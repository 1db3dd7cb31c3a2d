// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cgroup.h"

#include <fstream>

namespace lockstep {

void for_each_cgroup(const std::string& controller,
                     const std::function<void(const std::string&, bool)>& visit) {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find(controller) == std::string::npos) continue;
    for (;;) {
      visit("/sys/fs/cgroup" + (v2 ? "" : "/" + controller) + path, v2);
      if (path.empty() || path == "/") break;
      path = path.substr(0, path.rfind('/'));
    }
  }
}

}  // namespace lockstep
