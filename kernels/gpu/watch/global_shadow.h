// SPDX-License-Identifier: Apache-2.0
// The global memory that kernels may touch, and which block of the running launch last touched each byte.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace lockstep::gpu_watch {

class GlobalShadow {
 public:
  void add(const void* data, int64_t bytes, std::string name);
  void remove(const void* data);

  void launch_begins(int64_t blocks);
  void block_begins();

  struct Judgement {
    bool inside = false, race = false;
    std::string nearest;  // where outside: the allocation before it and by how much
  };
  Judgement access(uintptr_t address, size_t bytes, bool write);
  bool inside(uintptr_t address, size_t bytes) { return find(address, bytes) != nullptr; }
  std::string describe(uintptr_t address) const;
  // Blocks that meet in an atomic after a fence are ordered: the last one may read what the others wrote.
  void fence() { fenced_ = true; }
  void atomic(uintptr_t address);
  // Of this launch so far: bytes read that it had not written, and bytes written, each counted once.
  int64_t bytes_read() const { return bytes_read_; }
  int64_t bytes_written() const { return bytes_written_; }

 private:
  struct Cell {
    uint32_t writer = 0, reader = 0;  // blocks, numbered over all launches; many_ for several readers
  };
  struct Memory {
    int64_t bytes = 0;
    std::string name;
    std::vector<Cell> cells;
  };
  std::map<uintptr_t, Memory>::iterator before(uintptr_t address);
  Memory* find(uintptr_t address, size_t bytes);
  bool ordered(uint32_t block) const { return block < first_ || block == block_ || known_.count(block) > 0; }

  std::map<uintptr_t, Memory> memory_;
  uintptr_t last_begin_ = 0;
  Memory* last_ = nullptr;
  uint32_t first_ = 1, block_ = 0, many_ = 0;  // of this launch: its first block, the running one, "several"
  bool fenced_ = false;
  int64_t bytes_read_ = 0, bytes_written_ = 0;
  std::unordered_set<uint32_t> known_;                               // blocks that the running one has met
  std::unordered_map<uintptr_t, std::unordered_set<uint32_t>> met_;  // at each atomic
};

}  // namespace lockstep::gpu_watch
