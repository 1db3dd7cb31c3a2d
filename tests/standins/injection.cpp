// SPDX-License-Identifier: Apache-2.0
#include "tests/standins/injection.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace lockstep::standins {
namespace {

std::mutex mutex;
std::map<std::string, int>& calls() {
  static std::map<std::string, int> counts;
  return counts;
}
std::atomic<int> alive{0};
std::atomic<bool> device_lost{false};

std::FILE* log_file() {
  static std::FILE* const file = [] {
    const char* path = std::getenv("LOCKSTEP_STANDIN_LOG");
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    return path ? std::fopen((std::string(path) + "." + (rank ? rank : "0")).c_str(), "a") : nullptr;
  }();
  return file;
}

}  // namespace

Fate fate_of(const char* entry_point) {
  if (device_lost && std::strncmp(entry_point, "cuda", 4) == 0) return Fate::fail;
  const char* wish = std::getenv("LOCKSTEP_STANDIN_FAIL");
  if (!wish) return Fate::succeed;
  char name[64] = "", more[2][16] = {"", ""};
  int nth = 1;
  if (std::sscanf(wish, "%63[^:]:%d:%15[^:]:%15s", name, &nth, more[0], more[1]) < 1) return Fate::succeed;
  if (std::strcmp(name, entry_point) != 0) return Fate::succeed;
  Fate fate = Fate::fail;
  bool loses_device = false;
  for (const char* word : more) {
    if (std::strcmp(word, "hang") == 0) fate = Fate::hang;
    if (std::strcmp(word, "lose") == 0) loses_device = true;
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    if (std::strncmp(word, "rank", 4) == 0 && std::strcmp(word + 4, rank ? rank : "0") != 0)
      return Fate::succeed;
  }
  std::lock_guard lock(mutex);
  if (++calls()[entry_point] != nth && nth != 0) return Fate::succeed;
  if (loses_device) device_lost = true;
  return fate;
}

bool offers_for(int64_t samples) {
  const char* most = std::getenv("LOCKSTEP_STANDIN_OFFERS_UP_TO");
  return !most || samples <= std::atoll(most);
}

void log_call(const std::string& line) {
  std::FILE* const file = log_file();
  if (!file) return;
  std::lock_guard lock(mutex);
  std::fprintf(file, "%s\n", line.c_str());
  std::fflush(file);
}

void count(int change) {
  static const bool at_end = [] {
    std::atexit([] { log_call("leaks " + std::to_string(alive.load())); });
    return true;
  }();
  (void)at_end;
  alive += change;
}

}  // namespace lockstep::standins
