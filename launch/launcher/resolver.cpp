// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/resolver.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <memory>

namespace lockstep {
namespace {

// Requests to the resolver, all at once.
struct Requests {
  std::vector<std::string> names;
  std::vector<gaicb> requests;
};

uint32_t first_ip4(const addrinfo* all) {
  for (const addrinfo* a = all; a; a = a->ai_next)
    if (a->ai_family == AF_INET)
      return ntohl(reinterpret_cast<const sockaddr_in*>(a->ai_addr)->sin_addr.s_addr);
  return 0;
}

bool is_loopback(uint32_t address) { return address >> 24 == 127; }

// This machine's address on the way to another; 0: there is no way. Nothing is sent.
uint32_t own_address_towards(uint32_t other) {
  const int s = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (s < 0) return 0;
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(9);
  a.sin_addr.s_addr = htonl(other);
  socklen_t size = sizeof a;
  const bool known = ::connect(s, reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0 &&
                     ::getsockname(s, reinterpret_cast<sockaddr*>(&a), &size) == 0;
  ::close(s);
  return known ? ntohl(a.sin_addr.s_addr) : 0;
}

}  // namespace

std::map<std::string, Lookup> look_up(const std::vector<std::string>& names) {
  using Clock = std::chrono::steady_clock;
  std::map<std::string, Lookup> found;
  if (names.empty()) return found;
  auto asked = std::make_unique<Requests>(Requests{names, std::vector<gaicb>(names.size())});
  std::vector<gaicb*> list;
  for (size_t i = 0; i < names.size(); ++i) {
    asked->requests[i].ar_name = asked->names[i].c_str();
    list.push_back(&asked->requests[i]);
  }
  const auto count = static_cast<int>(list.size());
  const int failed = ::getaddrinfo_a(GAI_NOWAIT, list.data(), count, nullptr);
  const auto until = Clock::now() + std::chrono::seconds(5);
  const auto pending = [&] {
    return failed == 0 &&
           std::any_of(list.begin(), list.end(), [](gaicb* r) { return ::gai_error(r) == EAI_INPROGRESS; });
  };
  const timespec tick{0, 100'000'000};
  while (pending() && Clock::now() < until) ::gai_suspend(list.data(), count, &tick);
  bool unfinished = false;
  for (gaicb* request : list) {
    const int error = failed ? failed : ::gai_error(request);
    Lookup& one = found[request->ar_name];
    unfinished |= error == EAI_INPROGRESS;
    if (error == EAI_INPROGRESS) {
      one.problem = "the resolver gives no answer within 5 s";
    } else if (error != 0) {
      one.problem = ::gai_strerror(error);
    } else {
      one.ip4 = first_ip4(request->ar_result);
      ::freeaddrinfo(request->ar_result);
    }
  }
  // The resolver's threads still write there.
  static std::vector<std::unique_ptr<Requests>> kept;
  if (unfinished) kept.push_back(std::move(asked));
  return found;
}

std::string smallest_network(const std::vector<uint32_t>& addresses) {
  if (addresses.empty()) return "";
  uint32_t differs = 0;
  for (const uint32_t a : addresses) differs |= a ^ addresses.front();
  const int bits = std::countl_zero(differs);
  if (bits < 8 || bits == 32) return "";
  const in_addr network{htonl(addresses.front() & ~uint32_t{0} << (32 - bits))};
  char text[INET_ADDRSTRLEN];
  return fmt::format("{}/{}", ::inet_ntop(AF_INET, &network, text, sizeof text), bits);
}

std::string network_of(const std::vector<std::string>& names) {
  std::vector<uint32_t> addresses;
  for (const auto& [name, found] : look_up(names)) {
    if (found.ip4 == 0) return "";
    if (is_loopback(found.ip4)) continue;  // this machine, by a name of its own
    const uint32_t own = own_address_towards(found.ip4);
    if (own == 0) return "";
    addresses.insert(addresses.end(), {found.ip4, own});
  }
  return smallest_network(addresses);
}

}  // namespace lockstep
