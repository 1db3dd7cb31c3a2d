// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/watch/shared_shadow.h"

#include <algorithm>
#include <bit>

namespace lockstep::gpu_watch {

using simt_executor::kWarp;

void Order::block_begins() { block_first_ = block_known_ = ++now_; }

void Order::warp_synced(unsigned warp, uint32_t lanes) {
  const uint32_t t = ++now_;
  Warp& w = warps_[warp];
  if (lanes == 0xFFFFFFFF) {
    w.all = t;
    return;
  }
  std::array<uint32_t, kWarp> known{};
  for (uint32_t left = lanes; left; left &= left - 1) {
    const auto& row = w.lanes[static_cast<size_t>(std::countr_zero(left))];
    for (unsigned l = 0; l < kWarp; ++l) known[l] = std::max(known[l], row[l]);
  }
  for (unsigned l = 0; l < kWarp; ++l)
    if (lanes >> l & 1) known[l] = t;
  for (uint32_t left = lanes; left; left &= left - 1)
    w.lanes[static_cast<size_t>(std::countr_zero(left))] = known;
}

void Order::threads_synced(std::span<const uint16_t> threads) {
  const uint32_t t = ++now_;
  uint32_t warps = 0;
  std::array<uint32_t, kWarps> lanes{};
  for (unsigned thread : threads) {
    warps |= 1u << thread / kWarp;
    lanes[thread / kWarp] |= 1u << thread % kWarp;
  }
  std::array<uint32_t, kWarps> known{};
  for (unsigned w = 0; w < kWarps; ++w) {
    if (!(warps >> w & 1)) continue;
    for (unsigned v = 0; v < kWarps; ++v) known[v] = std::max(known[v], between_[w][v]);
    if (lanes[w] == 0xFFFFFFFF) warps_[w].all = t;
  }
  for (unsigned w = 0; w < kWarps; ++w)
    if (warps >> w & 1) known[w] = t;
  for (unsigned w = 0; w < kWarps; ++w)
    if (warps >> w & 1) between_[w] = known;
}

bool Order::before(uint32_t time, unsigned other, unsigned self) const {
  if (other == self || time < block_known_) return true;
  const unsigned a = self / kWarp, b = other / kWarp;
  if (a != b) return time < between_[a][b];
  return time < warps_[a].all || time < warps_[a].lanes[self % kWarp][other % kWarp];
}

bool Order::lanes_before(uint32_t time, unsigned warp, uint32_t lanes, unsigned self) const {
  if (time < block_known_) return true;
  for (uint32_t left = lanes; left; left &= left - 1)
    if (!before(time, warp * kWarp + static_cast<unsigned>(std::countr_zero(left)), self)) return false;
  return true;
}

bool Order::warps_before(uint32_t time, uint32_t warps, unsigned self) const {
  if (time < block_known_) return true;
  const unsigned own = self / kWarp;
  for (uint32_t left = warps; left; left &= left - 1) {
    const auto w = static_cast<unsigned>(std::countr_zero(left));
    if (w == own ? time >= warps_[own].all : time >= between_[own][w]) return false;
  }
  return true;
}

bool SharedShadow::readers_before(const Order& order, const Cell& c, unsigned self) {
  return c.read_warp == kMany ? order.warps_before(c.read_time, c.readers, self)
                              : order.lanes_before(c.read_time, c.read_warp, c.readers, self);
}

SharedShadow::Verdict SharedShadow::judge(const Order& order, Cell& c, Kind kind, unsigned self) const {
  if (!order.in_this_block(c.write_time)) c.writer = kNobody;
  if (!order.in_this_block(c.read_time)) c.read_warp = kNobody;
  Verdict v = Verdict::fine;
  if (c.writer == kNobody) {
    if (kind == Kind::read || kind == Kind::atomic) v = Verdict::unwritten;
  } else if (c.writer == kAtomics) {
    if (kind != Kind::atomic && !order.warps_before(c.write_time, c.atomic_warps, self)) v = Verdict::race;
  } else if (c.writer & kInFlight) {
    v = Verdict::in_flight;
  } else if (!order.before(c.write_time, c.writer, self)) {
    v = Verdict::race;
  }
  const unsigned warp = self / kWarp, lane = self % kWarp;
  if (kind == Kind::read) {
    // Readers that are all ordered before this one say nothing that it doesn't.
    if (c.read_warp != kNobody && readers_before(order, c, self)) c.read_warp = kNobody;
    if (c.read_warp == kNobody) {
      c.read_warp = static_cast<uint16_t>(warp);
      c.readers = 1u << lane;
    } else if (c.read_warp == kMany) {
      c.readers |= 1u << warp;
    } else if (c.read_warp == warp) {
      c.readers |= 1u << lane;
    } else {
      c.readers = 1u << c.read_warp | 1u << warp;
      c.read_warp = kMany;
    }
    c.read_time = order.now();
    return v;
  }
  if (v == Verdict::fine && c.read_warp != kNobody && !readers_before(order, c, self)) v = Verdict::race;
  if (kind == Kind::atomic) c.atomic_warps = (c.writer == kAtomics ? c.atomic_warps : 0) | 1u << warp;
  c.write_time = order.now();
  c.writer = kind == Kind::atomic ? kAtomics
                                  : static_cast<uint16_t>(self | (kind == Kind::async_issue ? kInFlight : 0));
  c.read_warp = kNobody;
  return v;
}

SharedShadow::Conflict SharedShadow::access(const Order& order, size_t offset, size_t bytes, Kind kind,
                                            unsigned self) {
  Conflict worst;
  for (size_t i = offset; i < offset + bytes; ++i) {
    const unsigned other = cells_[i].writer & ~kInFlight;
    const Verdict v = judge(order, cells_[i], kind, self);
    if (v != Verdict::fine && worst.verdict == Verdict::fine) worst = {v, other};
  }
  return worst;
}

void SharedShadow::arrived(const Order& order, size_t offset, size_t bytes, unsigned self) {
  for (size_t i = offset; i < offset + bytes; ++i)
    cells_[i] = {.write_time = order.now(), .writer = static_cast<uint16_t>(self)};
}

}  // namespace lockstep::gpu_watch
