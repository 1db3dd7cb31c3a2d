// SPDX-License-Identifier: Apache-2.0
// What the watch knows of each byte of a block's shared memory: who wrote and read it last, and whether a
// barrier lies between that and now.
//
// Time is a counter that grows with every barrier, vote or shuffle of the block. An access carries the time
// it was made at; what a thread knows of another is the time of the last barrier they both passed, directly
// or through others: all that the other did before is ordered before what the thread does now. Full barriers
// set one number for all; warp operations are kept lane by lane, named barriers warp by warp (they take whole
// warps).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/gpu/simt/executor.h"

namespace lockstep::gpu_watch {

class Order {
 public:
  void block_begins();
  void block_synced() { block_known_ = ++now_; }
  void warp_synced(unsigned warp, uint32_t lanes);
  void threads_synced(std::span<const uint16_t> threads);

  uint32_t now() const { return now_; }
  bool in_this_block(uint32_t time) const { return time >= block_first_; }
  // Whether what `other` did at `time` comes before what `self` does now.
  bool before(uint32_t time, unsigned other, unsigned self) const;
  bool lanes_before(uint32_t time, unsigned warp, uint32_t lanes, unsigned self) const;  // all of these lanes
  bool warps_before(uint32_t time, uint32_t warps, unsigned self) const;

 private:
  static constexpr unsigned kWarps = simt_executor::kMaxThreads / simt_executor::kWarp;
  struct Warp {
    uint32_t all = 0;  // the last operation of all 32 lanes
    std::array<std::array<uint32_t, simt_executor::kWarp>, simt_executor::kWarp> lanes{};  // [who][of whom]
  };
  uint32_t now_ = 0, block_first_ = 0, block_known_ = 0;
  std::array<Warp, kWarps> warps_;
  std::array<std::array<uint32_t, kWarps>, kWarps> between_{};  // [warp][of warp]
};

class SharedShadow {
 public:
  enum class Verdict : uint8_t { fine, unwritten, race, in_flight };
  enum class Kind : uint8_t { read, write, atomic, async_issue };
  struct Conflict {
    Verdict verdict = Verdict::fine;
    unsigned other = 0;  // the thread it is with, where that is known
  };

  explicit SharedShadow(size_t bytes) : cells_(bytes) {}
  Conflict access(const Order&, size_t offset, size_t bytes, Kind, unsigned self);
  // An asynchronous copy arrives: written now by the thread that waited for it.
  void arrived(const Order&, size_t offset, size_t bytes, unsigned self);

 private:
  static constexpr uint16_t kNobody = 0xFFFF, kAtomics = 0xFFFE, kMany = 0xFFFE, kInFlight = 0x4000;
  struct Cell {
    uint32_t write_time = 0, read_time = 0;
    uint32_t atomic_warps = 0;  // where writer is kAtomics
    uint32_t readers = 0;       // lanes of read_warp; warps where that is kMany
    uint16_t writer = kNobody;  // a thread, kAtomics, or a thread with kInFlight
    uint16_t read_warp = kNobody;
  };
  static bool readers_before(const Order&, const Cell&, unsigned self);
  Verdict judge(const Order&, Cell&, Kind, unsigned self) const;
  std::vector<Cell> cells_;
};

}  // namespace lockstep::gpu_watch
