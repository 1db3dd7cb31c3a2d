// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/resolver.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

namespace lockstep {
namespace {

// What threads ask the resolver, each for the next name; whoever waits for them may leave before.
struct Requests {
  explicit Requests(const std::vector<std::string>& all) : names(all), found(all.size()) {
    for (Lookup& one : found) one.problem = "the resolver gives no answer within 5 s";
  }
  const std::vector<std::string> names;
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::condition_variable changed;
  size_t done = 0;  // guarded by mutex, as found
  std::vector<Lookup> found;
};

uint32_t first_ip4(const addrinfo* all) {
  for (const addrinfo* a = all; a; a = a->ai_next)
    if (a->ai_family == AF_INET)
      return ntohl(reinterpret_cast<const sockaddr_in*>(a->ai_addr)->sin_addr.s_addr);
  return 0;
}

Lookup ask(const std::string& name) {
  addrinfo* all = nullptr;
  if (const int error = ::getaddrinfo(name.c_str(), nullptr, nullptr, &all); error != 0)
    return {::gai_strerror(error), 0};
  const Lookup one{"", first_ip4(all)};
  ::freeaddrinfo(all);
  return one;
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
  constexpr size_t kThreads = 16;
  const auto requests = std::make_shared<Requests>(names);
  std::vector<std::thread> threads;
  while (threads.size() < std::min(kThreads, names.size()))
    threads.emplace_back([requests] {
      Requests& r = *requests;
      for (size_t i; (i = r.next++) < r.names.size();) {
        const Lookup one = ask(r.names[i]);
        const std::lock_guard lock(r.mutex);
        r.found[i] = one;
        ++r.done;
        r.changed.notify_one();
      }
    });
  std::unique_lock lock(requests->mutex);
  requests->changed.wait_for(lock, std::chrono::seconds(5), [&] { return requests->done == names.size(); });
  requests->next = names.size();
  const bool all_done = requests->done == names.size();
  std::map<std::string, Lookup> found;
  for (size_t i = 0; i < names.size(); ++i) found[names[i]] = requests->found[i];
  lock.unlock();
  for (std::thread& t : threads) all_done ? t.join() : t.detach();
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
