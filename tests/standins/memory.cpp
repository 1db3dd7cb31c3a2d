// SPDX-License-Identifier: Apache-2.0
#include "tests/standins/memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "tests/standins/injection.h"

namespace lockstep::standins {
namespace {

constexpr size_t kSpan = size_t{1} << 40;  // of addresses, not of memory
constexpr size_t kPage = 4096, kAlignment = 256;
constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Two stretches of addresses of equal length: those that host code knows, and behind them the memory.
struct Addresses {
  Addresses();
  std::byte* begin = nullptr;
  size_t used = 0;
  std::map<const std::byte*, Allocation> live;
  std::mutex mutex;
};
Addresses& addresses() {
  static Addresses* const all = new Addresses;  // to the end of the process, whatever ends first
  return *all;
}

// Says which kind of access it was; then the fault takes its course.
void fault(int, siginfo_t* info, void*) {
  const auto* at = static_cast<const std::byte*>(info->si_addr);
  const std::byte* begin = addresses().begin;
  const char* what = nullptr;
  if (at >= begin && at < begin + kSpan)
    what = "stand-in: host code touches device memory\n";
  else if (at >= begin + kSpan && at < begin + 2 * kSpan)
    what = "stand-in: work on a stream touches device memory that is freed, or beyond its end\n";
  if (what && ::write(2, what, std::strlen(what)) < 0) ::_exit(70);
  ::signal(SIGSEGV, SIG_DFL);  // and once more, at the same place
}

Addresses::Addresses() {
  void* const found =
      ::mmap(nullptr, 2 * kSpan, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (found == MAP_FAILED) finding("no room for the device's addresses");
  begin = static_cast<std::byte*>(found);
  struct sigaction action {};
  action.sa_sigaction = fault;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSEGV, &action, nullptr);
}

}  // namespace

void* allocate_device(size_t bytes) {
  Addresses& a = addresses();
  const std::lock_guard lock(a.mutex);
  const size_t pages = round_up(round_up(bytes, kAlignment), kPage);
  std::byte* const first = a.begin + a.used;
  a.used += pages + kPage;
  if (a.used > kSpan || ::mprotect(first + kSpan, pages, PROT_READ | PROT_WRITE) != 0) return nullptr;
  std::byte* const memory = first + pages - round_up(bytes, kAlignment);
  std::memset(memory + kSpan, 0xA5, bytes);  // a GPU's memory isn't zero either
  a.live[memory] = {memory, bytes, true};
  count(1);
  return memory;
}

void release_device(void* memory) {
  Addresses& a = addresses();
  const std::lock_guard lock(a.mutex);
  const auto found = a.live.find(static_cast<std::byte*>(memory));
  if (found == a.live.end() || !found->second.on_device) finding("memory is freed that was not allocated");
  const size_t pages = round_up(round_up(found->second.bytes, kAlignment), kPage);
  std::byte* const first =
      static_cast<std::byte*>(memory) + round_up(found->second.bytes, kAlignment) - pages;
  ::mmap(first + kSpan, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  a.live.erase(found);
  count(-1);
}

void* allocate_host(size_t bytes) {
  void* const memory = std::aligned_alloc(kAlignment, round_up(bytes, kAlignment));
  std::memset(memory, 0xA5, bytes);
  Addresses& a = addresses();
  const std::lock_guard lock(a.mutex);
  const auto* at = static_cast<std::byte*>(memory);
  a.live[at] = {at, bytes, false};
  count(1);
  return memory;
}

void release_host(void* memory) {
  Addresses& a = addresses();
  const std::lock_guard lock(a.mutex);
  if (a.live.erase(static_cast<std::byte*>(memory)) == 0) finding("memory is freed that was not allocated");
  std::free(memory);
  count(-1);
}

Allocation allocation_at(const void* address) {
  Addresses& a = addresses();
  const std::lock_guard lock(a.mutex);
  const auto* at = static_cast<const std::byte*>(address);
  const auto after = a.live.upper_bound(at);
  if (after == a.live.begin()) return {};
  const Allocation& before = std::prev(after)->second;
  return at < before.begin + before.bytes ? before : Allocation{};
}

void* real_address(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address),
             begin = reinterpret_cast<uintptr_t>(addresses().begin);
  return reinterpret_cast<void*>(at >= begin && at < begin + kSpan ? at + kSpan : at);
}

void finding(const std::string& what) {
  std::fprintf(stderr, "stand-in: %s\n", what.c_str());
  std::abort();
}

}  // namespace lockstep::standins
