// SPDX-License-Identifier: Apache-2.0
// What the resolver knows of hosts' names.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lockstep {

struct Lookup {
  std::string problem;  // why the name has no address; "": it has one
  uint32_t ip4 = 0;     // the first IPv4 address, in the host's order; 0: there is none
};
// All at once; the resolver has five seconds.
std::map<std::string, Lookup> look_up(const std::vector<std::string>& names);

// The smallest IPv4 subnet, from a /8 to a /31, that holds the addresses of all the names and those by which this machine reaches
// them: "10.77.0.0/30". "": there is none, or all names are this machine's. So addresses behind a translation, which no
// interface has, give none.
std::string network_of(const std::vector<std::string>& names);
// The same of addresses in the host's order.
std::string smallest_network(const std::vector<uint32_t>& addresses);

}  // namespace lockstep
