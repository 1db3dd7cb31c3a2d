// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/network_interface.h"

#include <arpa/inet.h>
#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>

#include "kernels/core/error.h"
#include "runtime/files/host_name.h"

namespace lockstep {
namespace {

struct Subnet {
  uint32_t address = 0, mask = 0;  // in the host's order
};

std::optional<Subnet> read_subnet(const std::string& text) {
  const size_t slash = text.find('/');
  in_addr address{};
  int bits = 0;
  if (slash == std::string::npos || ::inet_pton(AF_INET, text.substr(0, slash).c_str(), &address) != 1)
    return {};
  const auto [end, error] = std::from_chars(text.data() + slash + 1, text.data() + text.size(), bits);
  if (error != std::errc() || end != text.data() + text.size() || bits < 0 || bits > 32) return {};
  const uint32_t mask = bits == 0 ? 0 : ~uint32_t{0} << (32 - bits);
  return Subnet{ntohl(address.s_addr) & mask, mask};
}

}  // namespace

std::string find_network_interface(const std::string& name_or_subnet) {
  const auto subnet = read_subnet(name_or_subnet);
  ifaddrs* first = nullptr;
  std::set<std::string> names;
  std::string found;
  if (::getifaddrs(&first) == 0) {
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(first, ::freeifaddrs);
    for (const ifaddrs* i = first; i; i = i->ifa_next) {
      names.insert(i->ifa_name);
      const bool has_ip4 = i->ifa_addr && i->ifa_addr->sa_family == AF_INET;
      if (subnet && !has_ip4) continue;
      const bool fits = subnet ? (ntohl(reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr.s_addr) &
                                  subnet->mask) == subnet->address
                               : i->ifa_name == name_or_subnet;
      if (fits && found.empty()) found = i->ifa_name;
    }
  }
  if (found.empty())
    throw Error(Exit::config, "E_NETWORK_INTERFACE",
                fmt::format("network_interface {}: host {} has {}", name_or_subnet, host_name(),
                            subnet ? "no address in that subnet" : "no interface of that name"))
        .at("host", host_name())
        .hint(fmt::format(
            "its interfaces: {}; where their names differ from host to host, say a subnet (\"10.0.0.0/24\")",
            fmt::join(names, ", ")));
  return found;
}

void use_network_interface(const std::string& name_or_subnet) {
  const std::string interface = find_network_interface(name_or_subnet);
  ::setenv("OMPI_MCA_btl_tcp_if_include", name_or_subnet.c_str(), 0);
  ::setenv("NCCL_SOCKET_IFNAME", ("=" + interface).c_str(), 0);  // "=": that one alone, not all that begin so
}

}  // namespace lockstep
