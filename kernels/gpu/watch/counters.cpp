// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/watch/counters.h"

#include <algorithm>

namespace lockstep::gpu_watch {

namespace {
constexpr uintptr_t kSector = 32, kWord = 4, kBanks = 32;
}

RequestCount& RequestCount::operator+=(const RequestCount& o) {
  requests += o.requests, moved += o.moved, least += o.least;
  return *this;
}

void Counters::access(const Key& key, uintptr_t address, size_t bytes, unsigned thread) {
  Warp& w = warps_[thread / kWarp];
  const unsigned lane = thread % kWarp;
  size_t i = w.last + 1;
  if (i >= w.open.size() || w.open[i].key != key) {
    const auto [found, is_new] = w.at.try_emplace(key, w.open.size());
    if (is_new) w.open.push_back({.key = key, .made = {}, .requests = {}});
    i = found->second;
  }
  w.last = i;
  Open& o = w.open[i];
  const uint32_t k = o.made[lane]++;
  if (k >= o.requests.size()) o.requests.emplace_back().reserve(kWarp);
  o.requests[k].push_back({address, static_cast<uint32_t>(bytes), lane});
}

void Counters::warp_met(unsigned warp) {
  Warp& w = warps_[warp];
  for (Open& o : w.open) {
    RequestCount sum;
    for (auto& request : o.requests) sum += o.key.space == Space::global ? sectors(request) : passes(request);
    places_[o.key] += sum;
  }
  w.open.clear();
  w.at.clear();
  w.last = 0;
}

void Counters::block_met() {
  for (unsigned w = 0; w < warps_.size(); ++w)
    if (!warps_[w].open.empty()) warp_met(w);
}

RequestCount Counters::sectors(std::vector<Access>& request) {
  const auto by_address = [](const Access& a, const Access& b) { return a.address < b.address; };
  if (!std::is_sorted(request.begin(), request.end(), by_address))
    std::sort(request.begin(), request.end(), by_address);
  int64_t sectors = 0;
  uintptr_t bytes = 0, sector_end = 0, byte_end = 0;  // ends of what is counted
  for (const Access& a : request) {
    const uintptr_t end = a.address + a.bytes;
    if (end > byte_end) bytes += end - std::max(a.address, byte_end), byte_end = end;
    const uintptr_t first = std::max(a.address / kSector, sector_end), last = (end + kSector - 1) / kSector;
    if (last > first) sectors += static_cast<int64_t>(last - first), sector_end = last;
  }
  return {1, sectors, static_cast<int64_t>((bytes + kSector - 1) / kSector)};
}

RequestCount Counters::passes(const std::vector<Access>& request) {
  RequestCount count{1, 0, 0};
  uint32_t widest = 0;
  for (const Access& a : request) widest = std::max(widest, a.bytes);
  const uint32_t lanes = widest > 8 ? 8 : widest > 4 ? 16 : 32;
  for (uint32_t first = 0; first < kWarp; first += lanes) {
    std::array<std::array<uintptr_t, kBanks>, kBanks>
        words;  // [bank]: distinct words, at most one a lane and word
    std::array<uint32_t, kBanks> distinct{};
    for (const Access& a : request) {
      if (a.lane < first || a.lane >= first + lanes) continue;
      for (uintptr_t word = a.address / kWord; word < (a.address + a.bytes + kWord - 1) / kWord; ++word) {
        auto& seen = words[word % kBanks];
        uint32_t& n = distinct[word % kBanks];
        if (std::find(seen.begin(), seen.begin() + n, word) == seen.begin() + n && n < kBanks)
          seen[n++] = word;
      }
    }
    const uint32_t most = *std::max_element(distinct.begin(), distinct.end());
    count.moved += most, count.least += most > 0;
  }
  return count;
}

}  // namespace lockstep::gpu_watch
